"""What ui does today, right or wrong: a refactoring may not change it."""

import unittest

from legacy import ui


class Ui(unittest.TestCase):
    def test_sign_in_page(self):
        self.assertEqual(
            ui.sign_in_page("Who are <you>?"),
            '<section class="panel"><h2>Sign in</h2><p class="hint">Who are &lt;you&gt;?</p>'
            '<label class="field">Name<input name="login"></label>'
            '<label class="field">Password<input name="password"></label></section>',
        )

    def test_customer_page(self):
        self.assertEqual(
            ui.customer_page("A & B", [(7, 1250), (8, 5)]),
            '<section class="panel"><h2>A &amp; B</h2><p class="hint">Customer</p>'
            '<label class="field">City<input name="city"></label>'
            '<p class="order">No. 7: 12.50</p><p class="order">No. 8: 0.05</p></section>',
        )

    def test_receipt_page(self):
        self.assertEqual(
            ui.receipt_page(7, 1250),
            '<section class="panel"><h2>Receipt</h2><p class="hint">Thank you</p>'
            '<p class="order">No. 7: 12.50</p></section>',
        )


if __name__ == "__main__":
    unittest.main()
