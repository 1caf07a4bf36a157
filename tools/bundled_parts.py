"""Add the bundled parts of other projects to a bill of materials.

`python -m tools.bundled_parts SBOM.json`

Packages that pip installs are in the lock file, from which the bill of materials is made. Parts
from npm are in folders of the package, each with a source.json: package, version, licence and
the checksum of npm's archive.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = "source.json"


def component(source: dict[str, Any]) -> dict[str, Any]:
    """Return the CycloneDX component of a source.json.

    Args:
        source: Its contents.
    """
    name, version = source["package"], source["version"]
    algorithm, _, checksum = source["integrity"].partition("-")
    assert algorithm == "sha512"
    purl = f"pkg:npm/{name}@{version}"
    return {
        "bom-ref": purl,
        "type": "library",
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": source["licence"]}}],
        "hashes": [{"alg": "SHA-512", "content": base64.b64decode(checksum).hex()}],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Add all bundled parts."""
    (bill,) = map(Path, sys.argv[1:] if argv is None else argv)
    content = json.loads(bill.read_text(encoding="utf-8"))
    parts = [
        component(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((ROOT / "rfkeras").rglob(SOURCE))
    ]
    content["components"] += parts
    content["dependencies"] += [{"ref": part["bom-ref"]} for part in parts]
    bill.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
