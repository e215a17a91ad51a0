"""What auth does today, right or wrong: a refactoring may not change it."""

import unittest

from legacy import auth


class Auth(unittest.TestCase):
    def test_greeting(self):
        self.assertEqual(auth.greeting({"name": "Anna {A}"}), "Welcome back, Anna {A}!")

    def test_fingerprint_is_of_six_digits(self):
        self.assertEqual(auth.fingerprint("anna", 7), "8505a90970ad1bdd")

    def test_cookie(self):
        self.assertEqual(auth.cookie("anna", 7, 2), "session=anna-000007-8505a90970ad1bdd; Max-Age=172800; Path=/")

    def test_log_line_keeps_its_columns(self):
        self.assertEqual(auth.log_line("anna", 3, "it's wrong"), 'anna        |   3|"it\'s wrong"')
        self.assertEqual(auth.log_line("a-much-too-long-name", 12345, None), "a-much-too-long-name|12345|None")

    def test_report_rounds_to_one_place(self):
        self.assertEqual(auth.report(1000, 33), "1000 logins, 3.3 % failed {ok}")
        self.assertEqual(auth.report(8, 1), "8 logins, 12.5 % failed {look!}")

    def test_reminder(self):
        self.assertEqual(auth.reminder({"name": "Anna", "days": 90}), "Anna, your password is 90 days old.")


if __name__ == "__main__":
    unittest.main()
