"""The ed25519 key that stores are sealed with: the user's own, outside of every project, and whose public half is trusted.

A fingerprint is SHA-256 over the public key as SSH writes it (RFC 4253 6.6, RFC 8709 4), so that ``ssh-keygen -l`` prints the
same. ``cryptography`` is imported where it is used: no other command waits for it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parallel_agents.eventstore.errors import InvalidUsage
from parallel_agents.eventstore.location import files_home, keys_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE: Final = "seal.pem"
PUBLIC: Final = "seal.pub"
KIND: Final = "ssh-ed25519"
_PREFIX: Final = len(KIND).to_bytes(4, "big") + KIND.encode() + (32).to_bytes(4, "big")
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_MOST_BYTES: Final = 65_536  # No key is that long.

Ask = Callable[[Path], str]
"""Asks for the passphrase of a key, where somebody is there to be asked."""


def public_text(raw: bytes) -> str:
    """A public key of 32 bytes in one line, as in ``authorized_keys``."""
    return f"{KIND} {base64.b64encode(_PREFIX + raw).decode()}"


def public_bytes(text: str) -> bytes:
    """The 32 bytes of such a line.

    Raises:
        ValueError: it is none of an ed25519 key.
    """
    words = text.split()
    if len(words) < 2 or words[0] != KIND:
        raise ValueError("no ed25519 key")
    blob = base64.b64decode(words[1], validate=True)
    if len(blob) != len(_PREFIX) + 32 or not blob.startswith(_PREFIX):
        raise ValueError("no ed25519 key")
    return blob[len(_PREFIX) :]


def fingerprint(raw: bytes) -> str:
    """What a public key is told by, such as ``SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU``."""
    return "SHA256:" + base64.b64encode(sha256(_PREFIX + raw).digest()).decode().rstrip("=")


def own_folder(environ: Mapping[str, str]) -> Path:
    """Where the user's own key lies.

    Raises:
        InvalidUsage: the user has no home.
    """
    folder = keys_folder(environ)
    if folder is None:
        raise InvalidUsage(
            "neither XDG_CONFIG_HOME nor HOME names a folder, so there is no place for a key of yours",
            hint="set HOME, or name a key with --key FILE",
        )
    return folder


def load_or_make(environ: Mapping[str, str], ask: Ask | None = None) -> tuple[Ed25519PrivateKey, Path, bool]:
    """The user's own key, which is made (mode 0600) where there is none.

    Returns:
        The key, where it lies, and whether it was made just now.
    Raises:
        InvalidUsage: there is no place for it, or what lies there cannot be used.
    """
    path = own_folder(environ) / PRIVATE
    made = not path.exists() and _make(path)
    return load(path, ask), path, made


def _make(path: Path) -> bool:
    """Make a key, unless somebody else is first."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(part, path)  # Whole or not at all, and never over another one.
        except FileExistsError:
            return False
        finally:
            part.unlink()
        raw = key.public_key().public_bytes_raw()
        path.with_name(PUBLIC).write_text(f"{public_text(raw)} parallel-agents\n")
    except OSError as error:
        raise InvalidUsage(
            f"no key can be made at {path}: {error.strerror}", hint="name a key with --key FILE"
        ) from None
    return True


def load(path: Path, ask: Ask | None = None) -> Ed25519PrivateKey:
    """A private key, as OpenSSL (PKCS #8 in PEM) or OpenSSH writes it.

    Args:
        ask: for a passphrase; None where nobody can be asked.
    Raises:
        InvalidUsage: it is not there, others can read it, it is no such key, or the passphrase is wrong.
    """
    content = _read(path, f"openssl genpkey -algorithm ed25519 -out {path}")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InvalidUsage(f"others can read the key {path}", hint=f"make a new one, or chmod 600 {path}")
    key = _parsed(path, content, None)
    if key is None:
        if ask is None:
            raise InvalidUsage(f"the key {path} has a passphrase, and nobody is here to be asked for it")
        key = _parsed(path, content, ask(path).encode())
        assert key is not None
    return key


def _parsed(path: Path, content: bytes, passphrase: bytes | None) -> Ed25519PrivateKey | None:
    """The key; None where it has a passphrase, and none was given."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    load = form.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else form.load_pem_private_key
    try:
        key = load(content, passphrase)
    except TypeError:
        return None  # Or the library would have taken it without.
    except UnsupportedAlgorithm as error:
        raise InvalidUsage(f"{path} cannot be read: {error}", hint="`openssl genpkey` makes one that can") from None
    except ValueError:
        if passphrase is not None:
            raise InvalidUsage(f"that is not the passphrase of {path}") from None
        raise InvalidUsage(f"{path} holds no private key", hint="an ed25519 key, in PEM or as OpenSSH has it") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidUsage(f"{path} is no ed25519 key", hint=f"openssl genpkey -algorithm ed25519 -out {path}")
    return key


def refuse_within(store: Path, path: Path) -> None:
    """Refuse a key that lies beside the log: who can change the one could then seal it anew.

    Raises:
        InvalidUsage: it does.
    """
    if path.resolve().is_relative_to(files_home(store).resolve()):
        raise InvalidUsage(
            f"{path} lies beside the log that it is to seal",
            hint="keep it where agents do not work, such as in your home",
        )


def trusted(named: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Whose seals count: fingerprint -> who says so.

    Args:
        named: fingerprints, or files with a public key. Where one is named, the user's own key is not taken for granted.
    Raises:
        InvalidUsage: one is neither.
    """
    found = {word if _FINGERPRINT.fullmatch(word) else fingerprint(_public_in(Path(word))): word for word in named}
    if found:
        return found
    folder = keys_folder(environ)
    with contextlib.suppress(OSError, ValueError):
        if folder is not None:
            path = folder / PUBLIC
            found[fingerprint(public_bytes(path.read_text()))] = str(path)
    return found


def _public_in(path: Path) -> bytes:
    """The public key in a file, as OpenSSH or OpenSSL writes it."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(path, "a fingerprint begins with SHA256:")
    with contextlib.suppress(ValueError, UnicodeDecodeError):
        return public_bytes(content.decode())
    with contextlib.suppress(ValueError):
        key = form.load_pem_public_key(content)
        if isinstance(key, Ed25519PublicKey):
            return key.public_bytes_raw()
    raise InvalidUsage(
        f"{path} holds no public ed25519 key", hint="the line that `seal` prints, or what is in a .pub file"
    )


def _read(path: Path, hint: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidUsage(f"there is no key at {path}: {error.strerror}", hint=hint) from None
