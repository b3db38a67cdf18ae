"""What the tests share: the worker under test, its handlers, waiting, counting."""
