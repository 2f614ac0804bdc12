"""The reader of tables and of named files: all dialects of one table, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import os
from pathlib import Path

import pytest
from helpers import CPU, splits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nas_bench_macro import space as macro

from nasrun.architectures.samples import Listed
from nasrun.budget import latency
from nasrun.errors import UserError
from nasrun.evaluator.table import TableEvaluator
from nasrun.run.files import decoded, read_named
from nasrun.run.tables import MAX_TABLE_BYTES, read_table
from nasrun.search_space.written import with_zeros
from nasrun.streams import Streams

PIPES_AND_DEVICES = {
    "pipe": os.mkfifo,
    "link to a pipe": lambda path: (os.mkfifo(f"{path}.p"), path.symlink_to(f"{path}.p")),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path),
    "nothing": lambda path: None,
}


def scores(path: Path, scale: float | str = 0.01, score: str = "acc") -> dict[str, float]:
    evaluator = TableEvaluator(
        path=str(path), architecture="arch", score=score, scale=scale, tau=1.0
    )
    scorer = evaluator.bind(macro(), splits(), CPU, Streams(0))
    return {macro().write(each): values[0] for each, values in scorer.by_seed.items()}


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


names = (
    st.text(st.sampled_from("abz ä~é/,;.\"'|\t0"), min_size=1, max_size=6)
    .map(str.strip)
    .filter(lambda name: name not in ("", "arch", "acc"))
)
digits = st.lists(st.sampled_from("012"), min_size=8, max_size=8).map("".join)


@settings(max_examples=50)
@given(
    values=st.dictionaries(digits, st.integers(0, 10_000), min_size=1, max_size=5),
    notes=st.lists(names, max_size=2, unique=True),
    separator=st.sampled_from(",;\t"),
    mark=st.sampled_from(".,"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    pad=st.sampled_from(["", " ", "\xa0"]),
    percent=st.sampled_from(["", "%", " %"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    word=st.sampled_from(["{}", "'{}", "'{}'", '="{}"', "number"]),
    packed=st.sampled_from(["", ".gz", ".xz"]),
    told=st.booleans(),
    scale=st.sampled_from([0.01, "auto"]),
)
def test_one_table_in_any_dialect_is_read_as_the_same_values(
    tmp_path_factory, values, notes, separator, mark, encoding, newline, pad, percent, quoting,
    word, packed, told, scale,
):  # fmt: skip
    written = {key: f"{value / 100:.2f}".replace(".", mark) for key, value in values.items()}
    expected = {key: float(f"{value / 100:.2f}") * 0.01 for key, value in values.items()}
    if scale == "auto" and not percent and max(values.values()) <= 100:
        expected = {key: 100 * value for key, value in expected.items()}
    file = io.StringIO(newline="")
    if told:
        file.write(f"sep={separator}\r\n")
    writer = csv.writer(file, delimiter=separator, lineterminator=newline, quoting=quoting)
    writer.writerow([*notes, f"{pad}arch{pad}", f"acc{pad}"])
    for key, value in written.items():
        form = str(int(key)) if word == "number" else word.format(key)
        writer.writerow([*notes, f"{pad}{form}{pad}", f"{pad}{value}{percent}{pad}"])
    writer.writerow(["" for _ in [*notes, 1, 2]])
    data = file.getvalue().encode(encoding)
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[packed]
    path = tmp_path_factory.getbasetemp() / f"any.csv{packed}"
    path.write_bytes(pack(data))
    found = scores(path, scale)
    assert found.keys() == expected.keys()
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arch,acc,acc\n00000000,1,2\n", "2 columns of that name, the columns 2 and 3"),
        ("arch;acc; acc\n00000000;1;2\n", "2 columns of that name, the columns 2 and 3"),
        ("arch;Acc\n00000000;1\n", r"score=acc: .*\(did you mean 'Acc'\?\); it has arch, Acc$"),
        ("arch,acc\n00000000,93,13\n", "line 2: 3 cells for 2 columns; .* decimal comma"),
        ("arch;acc\n00000000;93,1\n00000001;1.234,5\n", "line 3: acc = '1.234,5' is no number"),
        ("arch;acc\n00000000;93,1\n00000001;93.2\n", "line 3: .* has '.' where line 2 has ','"),
        ("arch;acc\n00000000;\n", "line 2: acc = '' is no number"),
        ("arch;acc\n1_0;1_0\n", "line 2: "),
        ("arch,acc\n00000000,101%\n", "acc = 101% is no accuracy from 0 to 1"),
        ("arch,acc\n00000000,5\n'00000000,5\n", "line 3: 00000000 has a score already, in line 2"),
        ("arch,acc\n12,5\n00000012,5\n", "line 2: '12': .* this one has 2"),
        ("arch,acc\n2.22E+07,5\n", "a spreadsheet has rounded it"),
    ],
)  # fmt: skip
def test_what_no_table_may_be(tmp_path, text, said):
    with pytest.raises(UserError, match=said) as error:
        scores(table(tmp_path / "t.csv", text))
    assert "\n" not in str(error.value)


def test_shares_of_one_are_recognised_or_warned_of(tmp_path, capsys):
    path = table(tmp_path / "t.csv", "arch,acc,loss\n00000000,0.8,0.5\n00000001,1,3\n")
    assert list(scores(path, "auto").values()) == [0.8, 1.0]
    assert "note: no acc of" in capsys.readouterr().out
    assert list(scores(path).values()) == [pytest.approx(0.008), pytest.approx(0.01)]
    assert "warning: no acc of" in capsys.readouterr().out
    assert list(scores(path, 1.0).values()) == [0.8, 1.0]
    assert list(scores(path, "auto", "loss").values()) == [0.005, 0.03]
    assert not capsys.readouterr().out
    table(path, "arch,acc\n00000000,0.8%\n00000001,80%\n")
    assert list(scores(path, 1.0).values()) == list(scores(path, "auto").values()) == [0.008, 0.8]
    assert not capsys.readouterr().out


def test_zeros_are_put_back_only_where_all_were_lost(capsys, tmp_path):
    space = macro()
    every = [space.write(each) for each in space.every()]
    assert with_zeros(space, [str(int(word)) for word in every]) == (every, 3**7)
    assert with_zeros(space, [f"{int(word)}.0" for word in every])[0] == every
    assert with_zeros(space, every) == (every, 0)
    assert with_zeros(space, ["0", "00000012", "7"]) == (["0", "00000012", "7"], 0)
    assert with_zeros(space, ["100", "0100"]) == (
        ["100", "0100"],
        0,
    )
    scores(table(tmp_path / "t.csv", "arch,acc\n12,50\n22222222,60\n"))
    assert "1 of 2 architectures had lost zeros in front" in capsys.readouterr().out


def test_latencies_stand_once_and_in_any_dialect(tmp_path):
    path = table(tmp_path / "l.csv", "ms ;operation\n1,5;a\n9;b,c\n")
    assert latency.read_table(path) == {"a": 1.5, "b,c": 9.0}
    table(path, "operation,ms\na,1.5\nb,1\na,1.5\n")
    with pytest.raises(UserError, match="line 4: 'a' has a latency already, in line 2"):
        latency.read_table(path)
    table(path, "operation,ms\na,1.5%\n")
    with pytest.raises(UserError, match=r"'1\.5%' is no time"):
        latency.read_table(path)


@pytest.mark.parametrize("kind", PIPES_AND_DEVICES)
def test_named_files_are_regular_ones(tmp_path, kind):
    path = tmp_path / "named"
    PIPES_AND_DEVICES[kind](path)
    with pytest.raises(UserError, match=r"^told: ") as error:
        read_named(path, 10, "told")
    assert "\n" not in str(error.value)
    readers = (
        lambda: scores(path),
        lambda: latency.read_table(path),
        lambda: Listed(path=str(path)).choose(macro(), None, None),
    )
    for read in readers:
        with pytest.raises(UserError, match="named"):
            read()


def test_named_files_are_bounded_and_may_be_links_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t").write_bytes(b"12345678901")
    (tmp_path / "link").symlink_to("t")
    assert read_named("~/link", 11, "told") == b"12345678901"
    with pytest.raises(UserError, match="11 bytes are more than the 10 allowed"):
        read_named("~/link", 10, "told")
    with pytest.raises(UserError, match="no such file"):
        read_named("~nobody-of-this-name/t", 10, "told")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_what_unpacks_to_more_than_any_table_is_refused(tmp_path, monkeypatch, pack):
    monkeypatch.setattr("nasrun.run.tables.MAX_TABLE_BYTES", 2**16)
    path = tmp_path / "t.csv"
    path.write_bytes(pack(b"a,b\n" + b"0" * 2**17))
    assert path.stat().st_size < 2**12 < MAX_TABLE_BYTES
    with pytest.raises(UserError, match="told: it has more than 65,536 bytes"):
        read_table(path, {"a": "a"}, "told")
    path.write_bytes(pack(b"a,b\n1,2\n")[:-9])
    with pytest.raises(UserError, match=r"^told: "):
        read_table(path, {"a": "a"}, "told")


def test_pictures_are_no_text():
    with pytest.raises(ValueError, match="no text"):
        decoded(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


def test_listed_architectures_in_another_encoding(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("00000000 # größer\r\n00000012\r\n".encode("utf-16"))
    chosen = Listed(path=str(path)).choose(macro(), None, None).architectures
    assert [macro().write(each) for each in chosen] == ["00000000", "00000012"]
