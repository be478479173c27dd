"""Rows in every supported format and container, and what is said of those that cannot be read."""

import csv
import dataclasses
import gzip
import importlib.util
import json
import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from sftmix_jax.data import readers, sources
from sftmix_jax.data.messages import BadRow, LeftOut, Message
from sftmix_jax.data.sources import Source
from sftmix_jax.machine.errors import UserError

PAIR = [Message("user", "q"), Message("assistant", "a")]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def conversations(source: Source) -> list:
    """Each row's messages, or why it has none."""
    found = [conversation for _, conversation in sources.read_conversations(source)]
    return [row if isinstance(row, BadRow) else row.messages for row in found]


def zipped(data: bytes) -> bytes:
    """The same bytes every time: they are part of a test's name."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "id": "1"},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "response": "a"},
        {"prompt": "q", "completion": "a"},
        {"question": "q", "answer": "a"},
        {"query": "q", "response": "a"},
    ],
)
def test_common_formats_are_recognised(tmp_path, row):
    assert conversations(Source(write_lines(tmp_path / "rows.jsonl", [row]))) == [PAIR]


def test_alpaca_joins_instruction_and_input(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"instruction": "add", "input": "1, 2", "output": "3"}])
    assert conversations(Source(path))[0][0].content == "add\n\n1, 2"


def test_every_container_gives_the_same_rows(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from array_record.python.array_record_module import ArrayRecordWriter

    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(5)]
    paths = [write_lines(tmp_path / "rows.jsonl", rows)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    writer = ArrayRecordWriter(str(tmp_path / "rows.array_record"), "group_size:1")
    for row in rows:
        writer.write(json.dumps(row).encode())
    writer.close()
    paths += [str(tmp_path / name) for name in ("rows.json", "rows.jsonl.gz", "rows.parquet", "rows.array_record")]
    assert all(conversations(Source(path)) == conversations(Source(paths[0])) for path in paths)
    assert len(conversations(Source(str(tmp_path / "rows.json*")))) == 15


def test_hub_datasets_on_disk(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([{"question": "q", "answer": "a"}])
    datasets.DatasetDict({"train": rows, "test": rows.add_item({"question": "q", "answer": "b"})}).save_to_disk(
        tmp_path / "splits"
    )
    assert [
        len(conversations(Source(f"{head}{tmp_path / 'splits'}{split}")))
        for head, split in (("hf:", ""), ("", ""), ("hf:", ":test"))
    ] == [1, 1, 2]
    rows.save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="one dataset without splits; leave ':test' out"):
        conversations(Source(f"hf:{tmp_path / 'set'}:test"))
    assert conversations(Source(f"hf:{tmp_path / 'set'}")) == [PAIR]


def test_a_tfds_builder_is_written_and_read_without_tensorflow(tmp_path):
    import sys

    import tensorflow_datasets as tfds

    class Pairs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = tfds.features.Text()
            features = tfds.features.FeaturesDict({"question": text, "answer": text})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"question": f"q{i}", "answer": f"a{i}"}

    Pairs(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    found = conversations(Source(f"tfds:{tmp_path / 'pairs' / '1.0.0'}:train"))
    assert sorted(m[0].content for m in found) == ["q0", "q1", "q2"]
    assert "tensorflow" not in sys.modules


def test_columns_are_mapped_and_functions_are_called(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"body": "q", "reply": "a"}])
    assert conversations(Source(path, columns={"prompt": "body", "completion": "reply"})) == [PAIR]
    (tmp_path / "mine.py").write_text(
        "def turns(row):\n"
        "    return [{'role': 'user', 'content': row['body']}, {'role': 'assistant', 'content': row['reply']}]\n"
    )
    assert conversations(Source(path, convert=f"{tmp_path / 'mine.py'}:turns")) == [PAIR]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"question": "q", "answer": "a"}\n{"question": \n', r"a\.jsonl:2: malformed JSON"),
        ("a.jsonl", b'{"question": "caf\xe9", "answer": "a"}\n', r"a\.jsonl:1: not UTF-8 \(byte 0xe9\)"),
        ("a.jsonl", b'["q", "a"]\n', r"a\.jsonl:1: a row must be a JSON object"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.json", b'[{"question": "q"},\n {]', r"a\.json:2: malformed JSON"),
        ("a.parquet", b"nonsense", "not a readable Parquet"),
        ("a.txt", b"hello", "cannot read '.txt'"),
        ("a.jsonl", b'{"foo": "q", "bar": "a"}\n', "no known format"),
        ("a.jsonl", b'{"text": "t"}\n{"text": "a", "text": "b"}\n', r"a\.jsonl:2: .*'text' stands twice"),
        ("a.jsonl", b'{"text": "t"}\n' + b"[" * 100_000, r"a\.jsonl:2: JSON is nested too deeply"),
        ("a.jsonl", b'{"text": "t"}\n{"n": ' + b"9" * 5000 + b"}", r"a\.jsonl:2: JSON that cannot be used"),
        ("a.json", b'[{"text": "t"},\n {"n": 1, "n": 2}]', r"a\.json: .*'n' stands twice"),
        ("a.json", b"", r"a\.json: malformed JSON"),
        ("a.json", b'{"data": [{"text": "t"}]}', r"a\.json: must hold a list of rows.*save the list in 'data' alone"),
        ("a.json", b'{"rows": [\n{"text": "t"}\n], "n": 1}', r"a\.json: must hold a list .* in 'rows' alone"),
        ("a.json", b'{"a": [1], "b": [2]}', r"a\.json\[0\]: columns a, b are no known format"),
        ("a.json", b'"text"', r"a\.json: must hold a list of rows, or one JSON object per line$"),
        ("a.jsonl", b'{\n  "text": "t"\n}', r"a\.jsonl:1: a row must be one line"),
        ("a.json", b"[" * 100_000, r"a\.json: JSON is nested too deeply"),
        ("a.json", b'[{"text": "t"}, 3]', r"a\.json\[1\]: a row must be a JSON object"),
        ("a.jsonl.gz", zipped(b'{"text": "t"}\n' * 9000)[:-9], r"a\.jsonl\.gz:\d+: the file cannot be read"),
        ("a.jsonl.gz", b'{"text": "t"}\n', r"a\.jsonl\.gz:1: the file cannot be read.*gzip"),
        ("a.jsonl.gz", zipped(b'{"text": "t"}\n' * 9)[:12] + b"\xff" * 30, r"a\.jsonl\.gz:1: the file cannot"),
        ("a.json.gz", zipped(b"[]" * 99)[:-4], r"a\.json\.gz:1: the file cannot be read"),
        ("a.array_record", b"nonsense" * 9, r"a\.array_record: not a readable ArrayRecord"),
        ("a.jsonl.xz", b"nonsense", r"cannot read '\.xz'; use \.jsonl, .*\.tsv \(all but .* also \.gz or \.zst\)"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        conversations(Source(str(tmp_path / name)))


RAW_FRAME = "28b52ffd 20 {:02x} {:02x}0000"  # RFC 8878: magic, single segment, its size, one raw block that is the last
SKIPPABLE = bytes.fromhex("502a4d18 03000000") + b"own"


def framed(text: bytes) -> bytes:
    """A Zstandard frame by hand that holds `text` as it is (under 32 bytes)."""
    return bytes.fromhex(RAW_FRAME.format(len(text), len(text) << 3 | 1)) + text


@pytest.fixture
def zstandard():
    return pytest.importorskip("zstandard", reason="zstandard is not installed")


def test_zstandard_files_are_read_to_the_end_of_the_last_frame(tmp_path, zstandard):
    """Also of many frames, as pzstd and `cat` write them, and within the window of `zstd --long=31`."""
    lines = [json.dumps({"text": f"{i} " * 50}).encode() + b"\n" for i in range(2000)]
    whole = b"".join(lines)
    (tmp_path / "plain.jsonl").write_bytes(whole)
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, write_checksum=True)
    streamed = zstandard.ZstdCompressor(compression_params=wide).compressobj()  # the frame does not say its size
    one = zstandard.ZstdCompressor().compress
    written = {
        "one": one(whole),
        "many": SKIPPABLE + b"".join(map(one, lines)) + SKIPPABLE,
        "wide": streamed.compress(whole) + streamed.flush(),
        "rows.json": one(b"[" + b",".join(lines) + b"]"),
    }
    wanted = conversations(Source(str(tmp_path / "plain.jsonl")))
    for name, data in written.items():
        file = tmp_path / f"{name}{'' if '.' in name else '.jsonl'}.zst"
        file.write_bytes(data)
        assert conversations(Source(str(file))) == wanted, name
    (tmp_path / "hand.jsonl.ZST").write_bytes(framed(b'{"text": "a"}\n') + SKIPPABLE + framed(b'{"text": "b"}\n'))
    found = conversations(Source(str(tmp_path / "hand.jsonl.ZST")))
    assert [row[-1].content for row in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"nonsense", r":1: the file cannot be read from here on"),
        (framed(b'{"text": "a"}\n')[:-3], r":1: .*ends within a Zstandard frame"),
        (framed(b'{"text": "a"}\n') + framed(b'{"text": "b"}\n')[:9], r":2: .*ends within a Zstandard frame"),
        (framed(b'{"text": "a"}\n') + b"behind it", r":2: the file cannot be read from here on"),
        (b"", "holds no rows"),
    ],
)
def test_a_damaged_zstandard_file_is_named_with_its_line(tmp_path, zstandard, data, said):
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    with pytest.raises(UserError, match=said):
        conversations(Source(str(tmp_path / "a.jsonl.zst")))


def test_zstandard_files_name_the_package_that_they_need(tmp_path, monkeypatch):
    for name in ("zstandard", "compression"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.jsonl.zst").write_bytes(framed(b'{"text": "a"}\n'))
    with pytest.raises(UserError, match=r"a\.jsonl\.zst: .*needs the package zstandard: pip install zstandard$"):
        conversations(Source(str(tmp_path / "a.jsonl.zst")))


def test_a_cut_parquet_file_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"text": f"t{i}"} for i in range(4000)]), file, row_group_size=1000)
    whole = file.read_bytes()
    for damaged in (whole[:-5], whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :], b""):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.parquet: not a readable Parquet file from row \d+ on"):
            conversations(Source(str(file)))


def test_null_members_of_parquet_structs_are_absent(tmp_path):
    """A column's structs share their members: a turn's call would get every argument of every other call."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(arguments):
        call = {"function": {"name": "w", "arguments": arguments}}
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        return {"messages": turns, "note": None}

    pq.write_table(pa.Table.from_pylist([row({"a": 1}), row({"b": [2]})]), tmp_path / "a.parquet")
    source = Source(str(tmp_path / "a.parquet"))
    calls = [messages[1].fields["tool_calls"][0]["function"]["arguments"] for messages in conversations(source)]
    assert calls == [{"a": 1}, {"b": [2]}]
    assert "note" in next(sources.read_rows(source)).value  # a column that is null is there, and can be asked for


def test_byte_order_marks_blank_lines_and_suffixes_in_capitals_are_read(tmp_path):
    (tmp_path / "A.JSONL").write_bytes(b'\xef\xbb\xbf{"prompt": "q", "response": "a"}\r\n\r\n')
    assert conversations(Source(str(tmp_path / "A.JSONL"))) == [PAIR]
    (tmp_path / "folder.jsonl").mkdir()
    assert conversations(Source(str(tmp_path / "*.[Jj]*"))) == [PAIR]


def pair(name: str) -> dict[str, str]:
    return {"prompt": "q", "response": name}


def test_a_path_is_a_file_a_folder_a_glob_or_several(tmp_path, monkeypatch):
    def said(path: str) -> list[str]:
        return [conversation[1].content for conversation in conversations(Source(path))]

    for name in ("a.jsonl", "b.jsonl", "deep/er/c.jsonl", "odd [1], x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(tmp_path / name, [pair(name[0])])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("what this is")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert said("~/a.jsonl") == ["a"] and said("~/deep/er") == ["d"]
    with pytest.raises(UserError, match="has the folder 'deep' in it; name the files"):
        said(str(tmp_path))
    (tmp_path / "deep" / "er" / ".hidden.jsonl").write_text("no rows")
    assert said("~/deep/er") == ["d"]
    assert said(f"{tmp_path}/**/*.jsonl") == ["a", "b", "d", "o"] and said("~/deep/**") == ["d"]
    assert said(f"{tmp_path}/b.jsonl, ~/deep/er,~/a*") == ["b", "d", "a"]
    assert said("~/odd [1], x.jsonl") == ["o"]  # the file of that name
    for path, reason in (
        ("~/a.jsonl,~/[ab].jsonl", "names .*a.jsonl twice"),
        ("~/empty", "without a file that can be read"),
        ("~/a.jsonl,~/none.jsonl", r"no file .*none\.jsonl"),
        ("gs://bucket/**/x.jsonl", "local files alone"),
    ):
        with pytest.raises(UserError, match=reason):
            said(path)


@pytest.mark.parametrize("path", ["{0}", "{0}/*.jsonl", "{0}/a.jsonl,{0}/z.jsonl", "{0}/../{1}/a.jsonl,{0}/a.jsonl"])
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_file_that_is_linked_is_not_read_twice(tmp_path, path, link):
    folder = tmp_path / "rows"
    folder.mkdir()
    write_lines(folder / "a.jsonl", [pair("q")])
    getattr(folder / "z.jsonl", link)(folder / "a.jsonl")
    with pytest.raises(UserError, match=r"a\.jsonl.* the same file|names .* twice"):
        conversations(Source(path.format(folder, folder.name)))
    assert len(conversations(Source(f"{folder}/z.jsonl"))) == 1


def test_a_folder_that_is_linked_is_not_read_twice(tmp_path):
    (tmp_path / "rows").mkdir()
    write_lines(tmp_path / "rows" / "a.jsonl", [pair("q")])
    (tmp_path / "more").symlink_to(tmp_path / "rows")
    with pytest.raises(UserError, match="the same file"):
        conversations(Source(f"{tmp_path}/**/*.jsonl"))


def test_tables_of_texts_are_read(tmp_path):
    """By Python's csv writer and by hand: quotes, commas, line ends and quotes in cells; weights are numbers."""
    said = ['a, "b"\nc', "2\t3"]
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        names = ["prompt", "response", "weight", "label"]
        csv.writer(stream).writerows([names, ["q", said[0], "0.5", "TRUE"], ["q", said[1], "", ""]])
    first, second = conversations(Source(str(tmp_path / "a.csv")))
    assert [first[1].content, second[1].content] == said and [first[1].weight, second[1].weight] == [0.5, 1.0]
    (tmp_path / "a.csv").write_text(",prompt,response\n0,q,a\n")  # as pandas writes it
    assert conversations(Source(str(tmp_path / "a.csv"))) == [PAIR]
    (tmp_path / "b.TSV").write_bytes("\ufeffinstruction\toutput\r\nsay, it\tä\r\n\r\n".encode())
    ((asked, answered),) = conversations(Source(str(tmp_path / "b.TSV")))
    assert (asked.content, answered.content) == ("say, it", "ä")
    for text, reason in (
        ("prompt,response\nq,a,b\n", "a.csv:2: 3 cells, and 2 columns"),
        ('prompt,response\nq,"a', "a.csv:2: not a table"),
        ("prompt,prompt\nq,a\n", "a.csv:1: the column name 'prompt'"),
        ("prompt,response\n", "holds no rows"),
        ("prompt,response,label\nq,a,no\n", "'label' is false"),
        ("prompt,response,loss\nq,a,maybe\n", "'loss' must be"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises((UserError, BadRow), match=reason):
            raise next(found for found in conversations(Source(str(tmp_path / "a.csv"))) if isinstance(found, BadRow))


def test_one_object_is_one_row_and_a_wrapped_list_is_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "q", "response": "a"}, indent=1))
    assert conversations(Source(str(tmp_path / "a.json"))) == [PAIR]
    (tmp_path / "a.json").write_text(json.dumps({"data": [pair("a")]}))
    with pytest.raises(UserError, match="save the list in 'data' alone"):
        conversations(Source(str(tmp_path / "a.json")))


def test_the_kind_of_a_file_is_part_of_its_fingerprint(tmp_path):
    """The same bytes as CSV and as TSV are other rows; and bytes that move to the next file."""
    for name, text in (
        ("a.csv", "prompt,response\nq,a\tb\n"),
        ("a.tsv", "prompt,response\nq,a\tb\n"),
        ("x/a.csv", "one"),
        ("x/b.csv", "two"),
        ("y/a.csv", "onet"),
        ("y/b.csv", "wo"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    prints = [sources.fingerprint(Source(str(tmp_path / name))) for name in ("a.csv", "a.tsv", "x", "y")]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_files_that_are_marked_as_another_encoding_are_read(tmp_path, encoding):
    row = '{"prompt": "q", "response": "a"}\n'
    for name, content in (("b.jsonl", row * 2), ("b.json", row * 2), ("list.json", f"[{row},{row}]")):
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert conversations(Source(str(tmp_path / name))) == [PAIR, PAIR]


def test_separators_of_unicode_end_no_line(tmp_path):
    """JSON may hold U+2028, U+2029 and U+0085 in a string as they are."""
    said = "a\u2028b\u2029c\x85d"
    rows = "".join(json.dumps({"prompt": "q", "response": said}, ensure_ascii=False) + "\n" for _ in range(2))
    for name in ("a.jsonl", "a.json"):  # JSON lines, under either name
        (tmp_path / name).write_text(rows)
        found = conversations(Source(str(tmp_path / name)))
        assert [conversation[1].content for conversation in found] == [said, said]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": "q"}]}, "no answer"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}]}, "an empty answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "starts with an answer"),
        ({"question": " ", "answer": "a"}, "an empty question"),
        ({"question": "q", "answer": "a", "history": [["", "b"]]}, "an empty question"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "unknown role 'narrator'"),
        ({"messages": [{"role": "user", "content": None}]}, "a message whose content is not text"),
    ],
)
def test_bad_rows_come_with_their_reason(tmp_path, row, reason):
    path = write_lines(tmp_path / "rows.jsonl", [row])
    assert [str(found) for found in conversations(Source(path))] == [reason]
    assert isinstance(conversations(Source(path))[0], BadRow)


def test_a_missing_file_and_an_unreachable_hub_say_what_to_do(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub's, between its tries
    with pytest.raises(UserError, match=r"no file nowhere\.jsonl"):
        conversations(Source("nowhere.jsonl"))
    with pytest.raises(UserError, match="the hub could not give it"):
        conversations(Source("hf:no/such_data_set_at_all"))


def test_storage_that_is_not_known_or_does_not_answer_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"ftp://h/x\.csv: no kind of storage that is read here; known are https://"):
        readers.files("ftp://h/x.csv")
    monkeypatch.setattr(readers, "_is_file", lambda path: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(UserError, match=r"gs://b/k.jsonl: cannot be read \(OSError: no route\); check the name"):
        readers.files("gs://b/k.jsonl")


def test_the_fingerprint_follows_the_contents_and_the_reading(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"question": "q", "answer": "a"}])
    first = sources.fingerprint(Source(path))
    assert sources.fingerprint(Source(path, validation_rows=5)) == first
    assert sources.fingerprint(Source(path, bad_rows="skip")) != first
    write_lines(tmp_path / "rows.jsonl", [{"question": "q", "answer": "b"}])
    assert sources.fingerprint(Source(path)) != first


TURNS = "def turns(row):\n    from helper import ask\n    return ask(row)\ndef others(row): return turns(row)\n"
HELPER = (
    "from deeper.inner import SAY\n"
    "def ask(row): return [{'role': 'user', 'content': row['q']}, {'role': 'assistant', 'content': SAY}]\n"
)


def own_function(folder, say: str) -> Source:
    (folder / "deeper").mkdir(parents=True)
    path = write_lines(folder / "rows.jsonl", [{"q": "q"}])
    (folder / "mine.py").write_text(TURNS)
    (folder / "helper.py").write_text(HELPER)
    (folder / "deeper" / "inner.py").write_text(f"SAY = {say!r}\n")
    return Source(path, convert=f"{folder / 'mine.py'}:turns")


@pytest.fixture
def own_imports():
    """Modules and folders that a test's own functions import are forgotten behind it."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("helper", "deeper", "mine"):
            del sys.modules[name]
    sys.path[:] = path


def test_a_function_is_identified_by_its_name_and_all_files_beside_it_that_it_imports(tmp_path, own_imports):
    source = own_function(tmp_path / "a", "a")
    assert conversations(source) == [PAIR]
    first = sources.fingerprint(source)
    assert sources.fingerprint(own_function(tmp_path / "b", "a")) == first  # wherever they stand
    others = dataclasses.replace(source, convert=source.convert.replace(":turns", ":others"))
    assert sources.fingerprint(others) != first
    (tmp_path / "a" / "unused.py").write_text("x = 1\n")
    assert sources.fingerprint(source) == first
    for file in ("mine.py", "helper.py", "deeper/inner.py"):
        whole = (tmp_path / "a" / file).read_text()
        (tmp_path / "a" / file).write_text(whole + "\n")
        assert sources.fingerprint(source) != first, file
        (tmp_path / "a" / file).write_text(whole)
    assert sources.fingerprint(source) == first


IMPORTS = [
    "import importlib\nhelper = importlib.import_module('helper')\n",
    "import importlib\ndef inner(): return importlib.import_module('helper.part', package=None)\n",
    "from importlib import import_module\nx = [import_module('helper')]\n",
    "x = __import__('helper')\n",
    "import importlib.util as u\nx = u.spec_from_file_location('x', 'helper.py')\n",
]
OPENS = [
    "from pathlib import Path\nx = Path(__file__).with_name('words.txt').read_text()\n",
    "from pathlib import Path\nx = Path(__file__).parent / 'words.txt'\n",
    "from pathlib import Path\nx = (Path(__file__).resolve().parent / 'data' / 'inner.txt').read_text()\n",
    "from pathlib import Path\nx = Path(__file__).parent.joinpath('data', 'inner.txt')\n",
    "import os\nx = open(os.path.join(os.path.dirname(__file__), 'data', 'inner.txt'))\n",
    "from os.path import dirname, join\nx = open(join(dirname(__file__), 'data', 'inner.txt'))\n",
    "def inner(): return open('data/inner.txt').read()\n",
    "from pathlib import Path\nx = Path(__file__).parent / './words.txt'\n",
    "import os\nHERE = os.path.dirname(__file__)\nx = open(f'{HERE}/words.txt')\n",
    "import os\nx = open(os.path.dirname(__file__) + '/data/inner.txt')\n",
]


@pytest.mark.parametrize("text", [*IMPORTS, *OPENS])
def test_what_a_function_imports_or_opens_by_a_literal_name_is_part_of_its_identity(tmp_path, text):
    """All files are changed in turn; those count that the text reaches, and no others."""
    (tmp_path / "data").mkdir()
    reached = {"helper.py", "far.py", "far.txt"} if text in IMPORTS else {re.search(r"(\w+)\.txt", text)[0]}
    places = {
        name: tmp_path / ("data" if name == "inner.txt" else "") / name
        for name in ("helper.py", "far.py", "far.txt", "words.txt", "inner.txt", "other.txt", "other.py")
    }
    for place in places.values():
        place.write_text("")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    places["helper.py"].write_text("import far\n")
    places["far.py"].write_text("x = open('far.txt')\n")
    (tmp_path / "mine.py").write_text(text + "def turns(row): return []\n")
    source = Source(str(tmp_path / "rows.jsonl"), convert=f"{tmp_path / 'mine.py'}:turns")
    first, counted = sources.fingerprint(source), set()
    for name, place in places.items():
        whole = place.read_text()
        place.write_text(whole + "\n")
        counted |= {name} if sources.fingerprint(source) != first else set()
        place.write_text(whole)
    assert counted == reached and sources.fingerprint(source) == first


def test_a_link_beside_a_function_counts_with_what_it_leads_to(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "words.txt").write_text("a")
    (tmp_path / "in" / "words.txt").symlink_to(tmp_path / "words.txt")
    (tmp_path / "in" / "mine.py").write_text("x = 'words.txt'\ndef turns(row): return []\n")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    source = Source(str(tmp_path / "rows.jsonl"), convert=f"{tmp_path / 'in' / 'mine.py'}:turns")
    first = sources.fingerprint(source)
    (tmp_path / "words.txt").write_text("b")
    assert sources.fingerprint(source) != first


def test_a_literal_that_names_no_file_beside_is_no_part_of_an_identity(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text("a")
    texts = ["'../out.txt'", f"'{tmp_path}/out.txt'", "'in'", "'.'", "''", "'\\0'", "'x' * 9", repr("y" * 300), "1 / 2"]
    (tmp_path / "in" / "mine.py").write_text(f"x = [{', '.join(texts)}]\ndef turns(row): return []\n")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    source = Source(str(tmp_path / "rows.jsonl"), convert=f"{tmp_path / 'in' / 'mine.py'}:turns")
    first = sources.fingerprint(source)
    (tmp_path / "out.txt").write_text("b")
    assert sources.fingerprint(source) == first


def test_a_module_that_is_imported_by_a_literal_name_must_be_that_beside_the_file(tmp_path, own_imports):
    (tmp_path / "json.py").write_text("")
    (tmp_path / "mine.py").write_text("import importlib\nimportlib.import_module('json')\ndef turns(row): return []\n")
    source = Source(write_lines(tmp_path / "rows.jsonl", [{"q": "q"}]), convert=f"{tmp_path / 'mine.py'}:turns")
    with pytest.raises(UserError, match="imports 'json' from beside it, but another module of that name is loaded"):
        conversations(source)


def test_two_folders_modules_of_one_name_are_not_mistaken(tmp_path, own_imports):
    assert conversations(own_function(tmp_path / "a", "a")) == [PAIR]
    with pytest.raises(UserError, match=r"imports '(helper|deeper)' from beside it, but another module of that name"):
        conversations(own_function(tmp_path / "b", "b"))


def test_a_file_of_the_function_s_own_name_is_part_of_its_identity(tmp_path):
    text = "from pathlib import Path\nx = Path(__file__).with_suffix('.txt').read_text()\ndef turns(row): return []\n"
    (tmp_path / "mine.py").write_text(text)
    path, prints = write_lines(tmp_path / "rows.jsonl", [{}]), []
    for words in ("a", "b"):
        (tmp_path / "mine.txt").write_text(words)
        prints.append(sources.fingerprint(Source(path, convert=f"{tmp_path / 'mine.py'}:turns")))
    assert prints[0] != prints[1]


def test_a_tag_that_nothing_gives_is_refused(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "q", "response": "a"}])
    for wrong in ("codes", "Code", "code,maths"):
        with pytest.raises(UserError, match=r"the built-in tagger has no tag '.*'; did you mean"):
            conversations(Source(path, without=wrong))
    assert "no row is left out by its tags" in next(Source(path, tagger="column:t").relations("d"))


def test_a_tagger_s_function_is_part_of_the_identity_and_its_faults_make_bad_rows(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "q", "response": "a", "t": 3}])
    (tmp_path / "tags.py").write_text(
        "def words(row): return 'code, math'\ndef fails(row): return row['x']\ndef none(row): return None\n"
        "def number(row): return [3]\n"
    )
    by = {
        name: Source(path, without="code", tagger=f"{tmp_path / 'tags.py'}:{name}")
        for name in ("words", "fails", "none", "number")
    }
    assert len({sources.fingerprint(source) for source in by.values()}) == 4
    found = {name: conversations(source)[0] for name, source in by.items()}
    assert str(found["words"]) == "tagged code" and isinstance(found["words"], LeftOut)
    assert str(found["fails"]) == "tagger raised KeyError: 'x'" and not isinstance(found["fails"], LeftOut)
    assert found["none"] == PAIR and str(found["number"]) == "the tagger gives tags that are no text"
    for column, reason in (("t", "column 't' gives tags that are no text"), ("u", "no tags in column 'u'")):
        assert str(conversations(Source(path, without="code", tagger=f"column:{column}"))[0]) == reason


def test_shared_files_are_read_whole(shared):
    rows = {
        "math/gsm8k_train.jsonl": 7473,
        "code/codegen_instruct.json": 4535,
        "code/code_alpaca_2k.json": 2017,
        "general/oasst1_en_sharegpt.json": 419,
        "general/messages_oasst1_100.jsonl": 100,
        "general/roleplay_instruct.json": 1923,
    }
    for name, count in rows.items():
        assert len(conversations(Source(str(shared / "data" / name)))) == count
    bad = [m for m in conversations(Source(str(shared / "data" / "code/code_alpaca_2k.json"))) if isinstance(m, BadRow)]
    assert np.unique([str(b) for b in bad]).tolist() == ["an empty answer"] and len(bad) == 2


@pytest.fixture
def web(tmp_path):
    """The address of a server of a folder's files, on loopback."""
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tmp_path))
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_files_on_the_web_are_read_and_identified_as_local_ones(web, tmp_path):
    rows = [{"instruction": f"{i} + 1", "output": str(i + 1)} for i in range(3)]
    write_lines(tmp_path / "own rows.jsonl", rows)
    write_lines(tmp_path / "more.jsonl", rows[:1])
    both = f"{web}/own%20rows.jsonl,{tmp_path / 'more.jsonl'}"
    assert [row.value for row in sources.read_rows(Source(both))] == [*rows, rows[0]]
    local = Source(str(tmp_path / "own rows.jsonl"))
    remote = Source(f"{web}/own%20rows.jsonl")
    assert sources.fingerprint(remote) == sources.fingerprint(local)


def test_an_escaped_slash_in_an_address_leads_to_no_other_folder(web, tmp_path):
    write_lines(tmp_path / "rows.jsonl", [{"instruction": "1 + 1", "output": "2"}])
    (file,) = readers.files(f"{web}/a%2F..%2F..%2F..%2Frows.jsonl")
    assert Path(file).parent.parent.name.startswith("sftmix_jax-") and file.name == "rows.jsonl"


@pytest.mark.parametrize(
    ("end", "said"), [("/none.jsonl", "cannot be fetched"), ("/", "names no file"), ("/a%2F..", "names no file")]
)
def test_an_address_without_a_file_is_refused(web, end, said):
    with pytest.raises(UserError, match=said):
        list(sources.read_rows(Source(web + end)))


def test_a_storage_whose_package_is_missing_is_refused_by_name():
    if importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(UserError, match=r"s3://bucket/rows\.jsonl: cannot be read here .*s3fs"):
        list(sources.read_rows(Source("s3://bucket/rows.jsonl")))
