Feature: Buying tea
  A visitor finds something, puts it into the cart and orders it.

  Background:
    Given I am on the home page

  @smoke
  Scenario: Order one product
    When I click "Browse the catalogue"
    And I click the button "Add Green tea to cart"
    Then I should be on "/cart"
    And I should see the heading "Your cart"
    And I should see "Green tea"
    When I click the link "Go to checkout"
    And I fill in the following:
      | Full name | Ada Lovelace     |
      | Email     | ada@example.org  |
    And I fill in "Address" with:
      """
      12 St James's Square
      London
      """
    And I select "United Kingdom" from "Country"
    And I choose "By invoice"
    And I tick "I accept the terms"
    And I click the button "Place order"
    Then I should see the heading "Thank you, Ada Lovelace"
    And I should see "on its way to United Kingdom"
    And I should see "You pay by invoice"

  Scenario: The terms must be accepted
    When I open "/product/kettle"
    And I set "Quantity" to "2"
    And I tick "Wrap as a gift"
    And I click the button "Add to cart"
    Then I should see "as a gift"
    When I click the element with test id "checkout"
    And I fill in "Full name" with "Ada Lovelace"
    And I fill in "Email" with "ada@example.org"
    And I fill in "Address" with "London"
    And I click the "Place order" button
    Then I should see "Please accept the terms"
    And the field "Full name" should be "Ada Lovelace"
    And the checkbox "I accept the terms" should not be ticked

  Scenario Outline: Search finds <product>
    When I fill in "Search the shop" with "<words>"
    And I press the key "Enter"
    Then I should be on "/search"
    And I should see the link "<product>"
    And I should see <count> elements "li.product"
    But I should not see "No product"

    Examples:
      | words  | product    | count |
      | kettle | Kettle     | 1     |
      | tea    | Green tea  | 3     |

  Scenario: Sign in
    When I click the link "Sign in"
    And I enter "ada" into "User name"
    And I enter "tea" into "Password"
    And I click the button "Sign in"
    Then I should see "Hello, ada"
    And I should not see the link "Sign in"
    And the title should be "Welcome - Corner Shop"
