"""Accounts and sessions."""

import hashlib

# ruff: noqa: UP031 - this is the old code that the refactoring is about.


def greeting(user):
    return "Welcome back, %s!" % user["name"]


def fingerprint(login, serial):
    # The length of this text is known to other programs: six digits, always.
    return hashlib.sha256(("%s:%06d" % (login, serial)).encode()).hexdigest()[:16]


def cookie(login, serial, days):
    value = "%s-%06d-%s" % (login, serial, fingerprint(login, serial))
    return "session=%s; Max-Age=%d; Path=/" % (value, days * 86400)


def log_line(login, attempts, reason):
    return "%-12s|%4d|%r" % (login, attempts, reason)


def report(logins, failures):
    rate = 100.0 * failures / logins
    return "%d logins, %.1f %% failed {%s}" % (logins, rate, "ok" if rate < 5 else "look!")


def reminder(user):
    # Translators get this text with its names.
    return "%(name)s, your password is %(days)d days old." % user
