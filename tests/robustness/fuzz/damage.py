"""Damage files in ways that fit their format, with strategies of hypothesis."""

import csv
import io
import json
import zipfile

import numpy as np
from hypothesis import strategies as st

CELLS = (
    "", " ", "0", "-1", "1e999", "nan", "inf", "9" * 5000, "0x10", "1_000", "True", "null",
    "../../etc/passwd", "/etc/passwd", "..\\..\\x", "a\0b", "C:\\x", "~", "x" * 100_000,
    "\ud83d\ude00", "\u202e", "'", '"', "\t", "|||", ",", "=1+1", "%s%n", "---", "\ufeff",
)  # fmt: skip
VALUES = (
    None, True, 0, -1, 2**63, 10**400, 1.5, 1e308, float("nan"), float("inf"), "", "x", [],
    {}, [[]], [None], {"": None}, [1] * 1000, "../../x", "a\0b", "9" * 5000,
)  # fmt: skip
YAML = (
    "!!python/object/apply:os.system ['true']", "&a [*a]", "*unknown", "{a: 1, a: 2}",
    "? [a]\n: b", "2001-12-14t21:59:43.10-05:00", "0b1", "1:2:3", "!!binary x", "<<: [1]",
    "[" * 2000, "{" * 500, ".inf", "!!set {a}", "!!timestamp x", "0o7", "~: ~", "- a\n- b",
)  # fmt: skip


def damaged(draw, path, content):
    """Damage the content of a file according to its extension."""
    kind = path.suffix
    if kind in (".json", ".jsonl"):
        return _json(draw, content)
    if kind in (".npz", ".keras"):
        return _archive(draw, content)
    if kind == ".npy":
        return _array(draw, content)
    if kind == ".yaml":
        return _yaml(draw, content)
    return _table(draw, content)


def _table(draw, content):
    text = content.decode()
    delimiter = "\t" if "\t" in text else ","
    rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
    row = draw(st.integers(0, len(rows) - 1))
    how = draw(st.sampled_from(("cell", "cell", "drop", "double", "short", "long", "text")))
    if how == "cell":
        cell = draw(st.sampled_from(CELLS) | st.text(max_size=20))
        rows[row][draw(st.integers(0, max(0, len(rows[row]) - 1)))] = cell
    elif how == "drop":
        del rows[row]
    elif how == "double":
        rows.insert(draw(st.integers(0, len(rows))), rows[row])
    elif how == "short":
        rows[row] = rows[row][:-1]
    elif how == "long":
        rows[row] = [*rows[row], draw(st.sampled_from(CELLS))]
    else:
        return draw(st.binary(max_size=200)) + text.encode(errors="replace")
    out = io.StringIO()
    quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    csv.writer(out, delimiter=delimiter, quoting=quoting).writerows(rows)
    return out.getvalue().encode(errors="surrogatepass")


def _json(draw, content):
    lines = content.decode().splitlines()
    at = draw(st.integers(0, len(lines) - 1)) if content[:1] != b"{" or len(lines) == 1 else 0
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from((b"[" * 100_000, b'{"a":' * 50_000, b"", b"\xff", b"1e999"))
        )
    whole = json.loads(lines[at] if len(lines) == 1 or content.count(b"\n{") else content)
    changed = json.dumps(_changed(draw, whole)).encode()
    if content.count(b"\n{"):
        return b"\n".join([*(line.encode() for line in lines[:at]), changed, b""])
    return changed


def _changed(draw, value):
    """Change one value in a tree of values."""
    items = (
        list(value.items() if isinstance(value, dict) else enumerate(value))
        if isinstance(value, dict | list)
        else []
    )
    if not items or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(VALUES))
    key, inner = items[draw(st.integers(0, len(items) - 1))]
    changed = dict(value) if isinstance(value, dict) else list(value)
    how = draw(st.integers(0, 9))
    if how == 0:
        del changed[key]
    elif how == 1 and isinstance(changed, dict):
        changed[draw(st.sampled_from(("", "x", "module", "file")))] = changed.pop(key)
    else:
        changed[key] = _changed(draw, inner)
    return changed


def _yaml(draw, content):
    lines = content.decode().splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    new = draw(st.sampled_from((*YAML, *CELLS)))
    if draw(st.booleans()):
        lines[at] = f"{lines[at].partition(':')[0]}: {new}"
    else:
        lines.insert(at, new)
    return "\n".join(lines).encode(errors="surrogatepass")


def _array(draw, content):
    array = np.load(io.BytesIO(content), allow_pickle=False)
    how = draw(st.integers(0, 6))
    if how == 0:
        array = array.astype(
            draw(st.sampled_from(("i1", "f2", "c8", "U3", "S2", "M8[s]", "O", "?")))
        )
    elif how == 1:
        array = array.reshape(-1)[: draw(st.integers(0, array.size))]
    elif how == 2:
        array = array[None] if draw(st.booleans()) else np.zeros((0, *array.shape), array.dtype)
    elif how == 3 and array.dtype.kind == "f":
        array = np.where(draw(st.booleans()), np.nan, array)
    elif how == 4:
        array = np.zeros(3, [("a", "i4"), ("b", "f8")])
    out = io.BytesIO()
    np.save(out, array)
    data = out.getvalue()
    if how == 5:  # a header that does not match the data
        shape = draw(st.sampled_from(("(10000000000000,)", "(-1,)", "(3,", "('a',)", "(9,)*9")))
        data = header(shape, draw(st.sampled_from(("<f8", "|O", "<U999999999", "x"))))
    elif how == 6:
        data = data[: draw(st.integers(0, len(data)))]
    return data


def header(shape, kind):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    padded = (text + " " * (117 - len(text)) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def _archive(draw, content):
    """Damage, drop, rename or inflate one member of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(members)))
    how = draw(st.integers(0, 5))
    kind = zipfile.ZIP_DEFLATED if draw(st.booleans()) else zipfile.ZIP_STORED
    if how == 0:
        members[draw(st.sampled_from(("x", "../x", "/x", "v0.npy", "a" * 70)))] = members.pop(
            name
        )
    elif how == 1:
        members[name] = bytes(50_000_000)
        kind = zipfile.ZIP_DEFLATED
    elif how == 2:
        del members[name]
    elif name.endswith(".npy"):
        try:
            members[name] = _array(draw, members[name])
        except ValueError:  # strings that cannot be converted to numbers
            at = draw(st.integers(0, len(members[name]) - 1))
            members[name] = members[name][:at] + b"\xff" + members[name][at + 1 :]
    elif name.endswith(".json"):
        members[name] = _json(draw, members[name])
    else:
        at = draw(st.integers(0, len(members[name]) - 1))
        new = draw(st.binary(min_size=1, max_size=8))
        members[name] = members[name][:at] + new + members[name][at + len(new) :]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return out.getvalue()
