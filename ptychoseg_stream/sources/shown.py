"""Addresses in messages: what may hold a password or a key is not repeated."""


def shown(address: str) -> str:
    """Return an address as it may be printed: nothing of it if it may hold a secret.

    A user and password stand before an "@", a key behind a "?" or "#". In an address that is
    malformed nobody can tell where they begin and end, so nothing of it is repeated.
    """
    if not set("@?#") & set(address):
        return repr(address)
    return "an address with a user, key or query (not repeated here)"
