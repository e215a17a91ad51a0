"""Customers and what they ordered."""

import sqlite3

# ruff: noqa: UP031 - this is the old code that the refactoring is about.

TABLES = ("customers", "orders")


def connect():
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT)")
    db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, cents INTEGER)")
    db.execute("CREATE VIEW sales AS SELECT name, city, cents FROM orders JOIN customers ON customers.id = customer_id")
    return db


def add_customer(db, name, city):
    return db.execute("INSERT INTO customers (name, city) VALUES ('%s', '%s')" % (name, city)).lastrowid


def add_order(db, customer_id, cents):
    return db.execute("INSERT INTO orders (customer_id, cents) VALUES (%d, %d)" % (customer_id, cents)).lastrowid


def find_customers(db, name):
    return db.execute("SELECT name, city FROM customers WHERE name = '%s' ORDER BY id" % name).fetchall()


def move(db, customer_id, city):
    return db.execute("UPDATE customers SET city = '%s' WHERE id = %d" % (city, customer_id)).rowcount


def sales(db, city, least_cents):
    found = db.execute("SELECT name, cents FROM sales WHERE city = '%s' AND cents >= %d" % (city, least_cents))
    return found.fetchall()


def count(db, table):
    if table not in TABLES:
        raise ValueError("no table %s" % table)
    # The name of a table cannot be a parameter.
    return db.execute("SELECT COUNT(*) FROM %s" % table).fetchone()[0]
