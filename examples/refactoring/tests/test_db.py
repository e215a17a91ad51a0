"""What db does today, right or wrong: a refactoring may not change it."""

import unittest

from legacy import db as shop


class Db(unittest.TestCase):
    def setUp(self):
        self.db = shop.connect()
        self.addCleanup(self.db.close)
        self.anna = shop.add_customer(self.db, "Anna", "Oslo")
        self.bert = shop.add_customer(self.db, "Bert", "Oslo")

    def test_customers_are_found_by_their_whole_name(self):
        self.assertEqual(shop.find_customers(self.db, "Anna"), [("Anna", "Oslo")])
        self.assertEqual(shop.find_customers(self.db, "Ann"), [])

    def test_names_may_hold_percent_signs_and_question_marks(self):
        shop.add_customer(self.db, "100 %s?", "Rome")
        self.assertEqual(shop.find_customers(self.db, "100 %s?"), [("100 %s?", "Rome")])

    def test_moving_tells_how_many_moved(self):
        self.assertEqual(shop.move(self.db, self.anna, "Rome"), 1)
        self.assertEqual(shop.move(self.db, 99, "Rome"), 0)
        self.assertEqual(shop.find_customers(self.db, "Anna"), [("Anna", "Rome")])

    def test_sales_are_those_of_a_city_from_an_amount_on(self):
        for customer, cents in ((self.anna, 500), (self.bert, 900), (self.anna, 1200)):
            shop.add_order(self.db, customer, cents)
        self.assertEqual(shop.sales(self.db, "Oslo", 900), [("Bert", 900), ("Anna", 1200)])
        self.assertEqual(shop.sales(self.db, "Rome", 0), [])

    def test_only_known_tables_are_counted(self):
        self.assertEqual(shop.count(self.db, "customers"), 2)
        with self.assertRaisesRegex(ValueError, "no table secrets"):
            shop.count(self.db, "secrets")


if __name__ == "__main__":
    unittest.main()
