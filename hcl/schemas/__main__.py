"""Write the schemas' files anew."""

from __future__ import annotations

from hcl.schemas import HERE, SCHEMAS, text

for name in SCHEMAS:
    (HERE / f"{name}.json").write_bytes(text(name))
