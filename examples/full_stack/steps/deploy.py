"""Deployment engineer: packs service and page into one archive, and proves that the archive runs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

from contract import load, need, say, write
from live import running_site

ARCHIVE = Path("dist/checkout.tar.gz")
START = '#!/bin/sh\n# Starts the shop: ./start.sh --port 8080 --database shop.db\ncd "$(dirname "$0")" || exit 1\n'
START += 'exec python3 -m service "$@"\n'


def collect() -> dict[str, bytes]:
    """Name in the archive -> content, with the start script and the manifest of digests."""
    paths = [*Path("service").glob("*.py"), *Path("web").iterdir(), need("docs/api.json")]
    files = {path.as_posix(): path.read_bytes() for path in paths} | {"start.sh": START.encode()}
    manifest = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    return files | {"MANIFEST.json": json.dumps(manifest, indent=2).encode() + b"\n"}


def pack(files: dict[str, bytes]) -> bytes:
    """The same files always give the same bytes: sorted, and without times, owners or the archive's own name."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as zipped,
        tarfile.open(mode="w", fileobj=zipped, format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(f"checkout/{name}")
            entry.size = len(files[name])
            entry.mode = 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    return packed.getvalue()


def verify(archive: Path) -> tuple[int, int]:
    """Unpack the archive elsewhere, check every digest, start it and call it; number of files and of products."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(archive, folder)
        root = Path(folder) / "checkout"
        manifest = json.loads((root / "MANIFEST.json").read_bytes())
        for name, digest in manifest.items():
            if hashlib.sha256((root / name).read_bytes()).hexdigest() != digest:
                raise SystemExit(f"{name} was damaged on its way into the archive")
        say(f"unpacked: {len(manifest)} files, every digest as in the manifest")
        with running_site(["sh", str(root / "start.sh"), "--port", "0"], folder) as site:
            page, products = site.call("GET", "/"), site.call("GET", "/api/products")
    if page.status != 200 or products.json() != load()["x-rules"]["products"]:
        raise SystemExit("the unpacked service does not answer as it should")
    return len(manifest), len(products.json())


def main() -> None:
    qa = json.loads(need("reports/qa.json").read_text(encoding="utf-8"))
    security = json.loads(need("reports/security.json").read_text(encoding="utf-8"))
    if qa["failed"] or qa["operations_unanswered"] or not security["passed"]:
        raise SystemExit("not deployed: the reports of qa and security must both be clean")
    say(f"cleared: {qa['passed']} checks passed, {len(security['findings'])} security findings")

    files = collect()
    packed = pack(files)
    if pack(collect()) != packed:
        raise SystemExit("packing twice gave two different archives")
    ARCHIVE.parent.mkdir(exist_ok=True)
    ARCHIVE.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    write(f"{ARCHIVE}.sha256", f"{digest}  {ARCHIVE.name}\n")
    say(f"packed {len(files)} files, the same bytes each time")
    count, products = verify(ARCHIVE)
    say(f"{ARCHIVE}: {len(packed)} bytes, {count} files, sha256 {digest[:12]}; unpacked it sells {products} products")


if __name__ == "__main__":
    main()
