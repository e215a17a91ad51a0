"""Pages, put together from text."""

from html import escape


def sign_in_page(message):
    page = '<section class="panel"><h2>' + escape("Sign in") + '</h2><p class="hint">' + escape(message) + "</p>"
    page += '<label class="field">' + escape("Name") + '<input name="' + escape("login") + '"></label>'
    page += '<label class="field">' + escape("Password") + '<input name="' + escape("password") + '"></label>'
    return page + "</section>"


def customer_page(name, orders):
    page = '<section class="panel"><h2>' + escape(name) + '</h2><p class="hint">' + escape("Customer") + "</p>"
    page += '<label class="field">' + escape("City") + '<input name="' + escape("city") + '"></label>'
    for number, cents in orders:
        page += '<p class="order">No. ' + str(number) + ": " + f"{cents / 100:.2f}" + "</p>"
    return page + "</section>"


def receipt_page(number, cents):
    page = '<section class="panel"><h2>' + escape("Receipt") + '</h2><p class="hint">' + escape("Thank you") + "</p>"
    page += '<p class="order">No. ' + str(number) + ": " + f"{cents / 100:.2f}" + "</p>"
    return page + "</section>"
