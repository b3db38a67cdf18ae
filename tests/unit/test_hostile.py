"""What handlers and producers may do to the protocol, piece by piece."""

import asyncio
import json
from random import Random

import pytest

from taskyard.broker import AmqpPublisher
from taskyard.deadletters import build_letter
from taskyard.engine.forged_headers import without_forged
from taskyard.engine.message_shape import fault_of
from taskyard.engine.read_message import raw_message
from taskyard.errors import CodedError, InvalidPayload
from taskyard.jobs import Catalogue
from taskyard.jobs.attempt_outcomes import Failure
from taskyard.jobs.catalogue import define
from taskyard.records import Record
from taskyard.runner import Rules
from taskyard.runner.attempt_pipeline import encode_result
from taskyard.runner.exception_facts import describe_failure
from taskyard.settings import Settings
from taskyard.wire import Letter, RawMessage, Stamp, pack
from taskyard.wire.undecoded_mark import UNREAD


class Message:
    content_type = "application/json"
    content_encoding = "utf-8"

    def __init__(self, body: object = ([], {}, {}), **headers: object) -> None:
        self.headers = {"id": "1", "task": "t", **headers}
        self.payload = body


@pytest.mark.parametrize(
    "headers",
    [
        {"id": 5},
        {"id": "\ud800"},
        {"id": "x" * 300},
        {"task": "\ud800"},
        {"task": ["t"]},
        {"timelimit": [10**400, None]},
        {"timelimit": "ab"},
        {"stamped_headers": [[]]},
        {"taskyard": {"v": 1, "epoch": 2**63, "generation": 0, "seq": 0}},
        {"taskyard": {"v": 1, "epoch": 1, "generation": 0, "seq": 10**400}},
        {"taskyard": {"v": 2, "epoch": 1, "generation": 0, "seq": 0}},
        {"taskyard": []},
        {"taskyard": {"v": 1, "epoch": 4 * 10**15, "generation": 0, "seq": 0}},
        {"id": "another:deliveries"},
        {"group": ["g"]},
        {"group_index": "1"},
        {"retries": -1},
        {"stamps": 5},
        {"headers": 5},
        {"shadow": []},
        {"eta": ""},
        {"eta": "9999-12-31T23:59:59"},
        {"expires": {}},
        {"callbacks": [{"task": "t"}]},
        {"chord": {"task": "t"}},
    ],
)
def test_a_header_that_would_kill_a_worker_is_a_fault(headers):
    assert fault_of(Message(**headers))


@pytest.mark.parametrize(
    "body",
    [
        [[], {}],
        [{}, {}, {}],
        [[], [], {}],
        [[], {}, {"callbacks": 5}],
        [[], {}, {"errbacks": [None]}],
        [[], {}, {"callbacks": [{"options": None}]}],
        [[], {}, {"chain": [{}]}],
        [[], {}, {"chain": [{"task": "x", "args": 5}]}],
        [[], {}, {"chord": 5}],
        [[], {}, {"chord": {"task": "x", "kwargs": [1]}}],
        [[], {}, {"id": "another job"}],
        [[], {}, {"taskyard_holder": "another delivery"}],
    ],
)
def test_a_body_of_another_shape_is_a_fault(body):
    assert fault_of(Message(body))


def test_what_only_a_worker_may_say_is_not_taken_from_a_message():
    own = {"traceparent": "00-1", "retries": 2, "_span": "x", "headers": {"a": 1}}
    forged = dict.fromkeys(
        ("taskyard_attempt", "taskyard_holder", "taskyard_decided", "get", "update", "children",
         "_children", "called_directly", "is_eager", "delivery_info", "args"),
        "junk",
    )  # fmt: skip
    assert without_forged({**own, **forged}) == own
    assert without_forged({"retries": None, "replaced_task_nesting": None}) == {}


def test_a_messages_policy_names_no_review_queue_of_its_own():
    types = Catalogue({"t": define("t", {"queue": "exec", "policy": {"escalate_on_failure": "a"}})})
    rules = Rules(types, Random(0))  # noqa: S311 - jitter is no secret
    for name, escalates in (("a", "a"), ("exec", "a"), ([], "a"), (None, None)):
        policy = rules.policy("t", {"escalate_on_failure": name, "max_retries": 9})
        assert (policy.escalate_on_failure, policy.max_retries) == (escalates, 9)


def test_a_message_is_published_again_without_the_user_that_rabbitmq_would_refuse():
    publisher = AmqpPublisher(Settings(broker_url="amqp://nowhere"))
    came = RawMessage(body=b"", properties={"user_id": "a client's", "message_id": "m"})
    options = publisher._own_options(came, {})
    assert (options.get("message_id"), "user_id" in options) == ("m", False)


def first_protocol(**parts: object) -> Message:
    message = Message({"task": "t", "id": "1", "args": [], "kwargs": {}, **parts})
    message.headers = {}
    return message


@pytest.mark.parametrize(
    "parts",
    [
        {"id": None},
        {"id": [1]},
        {"id": "a\x00b"},
        {"id": "\ud800"},
        {"task": [1]},
        {"args": 5},
        {"kwargs": []},
        {"timelimit": "ab"},
        {"callbacks": 5},
        {"chord": 5},
        {"group": []},
        {"retries": "x"},
    ],
)
def test_a_message_of_the_first_protocol_is_looked_at_as_well(parts):
    assert fault_of(first_protocol(**parts))


def test_a_plain_message_of_any_client_has_no_fault():
    assert fault_of(first_protocol(timelimit=[10, None], callbacks=None)) is None
    assert fault_of(Message([[1], {}, {"callbacks": None, "chain": [{"task": "x"}]}])) is None
    assert fault_of(Message([[1], {}, None], timelimit=[10, None], stamped_headers=["a"])) is None


@pytest.mark.parametrize("code", [["x"], "", "\ud800", "a b", "x" * 101, None])
def test_a_code_that_no_store_could_hold_is_refused_where_it_is_raised(code):
    with pytest.raises(ValueError, match="code must be a word"):
        CodedError(code, "text")


def test_details_that_are_no_mapping_are_refused_where_they_are_raised():
    with pytest.raises(TypeError, match="details must be a dict, got list"):
        CodedError("x", "text", details=["a"])


def test_details_that_refer_to_themselves_are_cut_and_stay_small():
    loop: dict[str, object] = {}
    loop["a"] = loop["b"] = loop
    failure = describe_failure("t", CodedError("x", "text", details=loop))
    assert len(json.dumps(failure.details)) < 10_000_000


def test_an_exception_that_cannot_be_read_is_described_all_the_same():
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    failure = describe_failure("t", Mute())
    assert "cannot be read" in failure.message


def test_a_result_whose_class_raises_is_a_failure():
    class UnreadableList(dict):
        def items(self):
            raise MemoryError

    def encode(value: object) -> bytes:
        return json.dumps(list(value.items())).encode()

    assert isinstance(encode_result(UnreadableList(), encode, 100), Failure)


def test_a_damaged_record_still_makes_a_letter_that_can_be_read():
    fields = {
        "state": "dead_lettered",
        "epoch": "1",
        "priority": "high",
        "begins": "nan",
        "cause": json.dumps({"category": "nonsense", "evidence": ["x"]}),
    }
    letter = build_letter(Record("j", fields), RawMessage(body=b"\xff"))
    assert Letter.parse(letter.encode()).category == "internal_error"


def test_what_is_packed_from_deep_data_can_be_parsed_again():
    value: object = "x"
    for _level in range(600):
        value = [value]
    message = RawMessage(body=b"", headers={"h": pack(value)})
    letter = build_letter(Record("j", {"epoch": "1"}), message)
    assert Letter.parse(letter.encode()).job_id == "j"


def test_a_payload_nested_too_deep_is_refused_by_the_client(taskyard_yard):
    value: object = {}
    for _level in range(150):
        value = {"a": value}
    with pytest.raises(InvalidPayload, match="nested more than 100 levels"):
        taskyard_yard.enqueue("exec_act", value)


def test_a_cancelled_loop_is_the_handlers_failure():
    error = asyncio.CancelledError()
    assert describe_failure("t", error).error_class == "CancelledError"


def test_a_stamp_counts_only_what_the_scripts_can_count():
    with pytest.raises(
        ValueError, match="epoch must be a whole number, 0 or more, got 9007199254740992"
    ):
        Stamp.read({"taskyard": {"v": 1, "epoch": 2**53, "generation": 0, "seq": 0}})


def test_a_text_body_that_utf8_cannot_hold_is_captured():
    message = Message()
    message.body, message.properties = '[["\ud800\udc80"], {}, {}]', {}
    assert raw_message(message).body.decode("utf-8", "surrogatepass") == message.body


def test_properties_that_nobody_can_read_are_a_fault():
    message = Message()
    message.headers = {UNREAD: b"\x80\x00\x01\xff"}
    assert "header 'taskyard_unread' holds their original bytes" in str(fault_of(message))


def test_a_summary_names_the_class_where_the_code_does_not():
    assert describe_failure("t", KeyError("card")).summary == "KeyError: 'card'"
    assert describe_failure("t", TimeoutError("late")).summary == "late"
    assert describe_failure("t", CodedError("no_card", "pay by hand")).summary == "pay by hand"
