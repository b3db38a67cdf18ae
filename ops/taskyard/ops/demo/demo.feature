Feature: Buying tea
  What the demonstration plans and runs against the sample shop.

  Background:
    Given I am on the home page

  Scenario: Order one product
    When I click "Browse the catalogue"
    And I click the button "Add Green tea to cart"
    Then I should see the heading "Your cart"
    When I click the link "Go to checkout"
    And I fill in the following:
      | Full name | Ada Lovelace    |
      | Email     | ada@example.org |
      | Address   | London          |
    And I choose "By invoice"
    And I tick "I accept the terms"
    And I click the button "Place order"
    Then I should see the heading "Thank you, Ada Lovelace"

  Scenario: Search finds tea
    When I fill in "Search the shop" with "tea"
    And I press the key "Enter"
    Then I should be on "/search"
    And I should see the link "Green tea"
