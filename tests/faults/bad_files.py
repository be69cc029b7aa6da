"""Data files that are refused: (name, bytes or a function that makes them, words of the message)."""

import gzip
import io
import json
import zipfile

from folders import POINTER

LONG = "x" * 200_000


def packed(*files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in files:
            archive.writestr(name, "text")
    return out.getvalue()


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(columns):
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


GOOD = {"question": "Who?", "answer": "Me."}
FILES = (
    ("empty.jsonl", b"", ["empty.jsonl", "no rows"]),
    ("blank.jsonl", b" \n\r\n\t", ["no rows"]),
    ("mark.jsonl", b"\xef\xbb\xbf", ["no rows"]),
    ("empty.json", b"[]", ["no rows"]),
    ("nothing.json", b'{"data": []}', ["no rows"]),
    ("cut.json", b'[{"question": "Who?"},', ["cut.json, line 1", "cannot be read as JSON"]),
    ("cut.jsonl", lines(GOOD) + b'{"question": "Wh', ["cut.jsonl, line 2", "not valid JSON"]),
    ("comma.jsonl", b'{"question": "Who?",}\n', ["line 1", "JSON"]),
    ("single.jsonl", b"{'question': 'Who?'}\n", ["line 1", "JSON"]),
    ("twice.jsonl", b'{"question": "a", "question": "b"}\n', ["line 1", "'question' is there twice"]),
    ("texts.json", b'["Who?", "Where?"]', ["list of objects", "row 1 is a str"]),
    ("numbers.json", b"[1, 2]", ["list of objects", "row 1 is a int"]),
    ("mixed.jsonl", lines(GOOD) + b"[1]\n", ["row 2 is a list"]),
    ("null.jsonl", lines(GOOD) + b"null\n", ["row 2 is a NoneType"]),
    ("two.json", json.dumps({"train": [GOOD], "test": [GOOD]}).encode(), ["several lists of rows (train, test)"]),
    ("uneven.json", b'{"question": ["a", "b"], "answer": ["c"]}', ["not of one length"]),
    ("deep.json", b"[" * 100_000, ["deep.json", "JSON"]),
    ("scalar.json", b'{"version": 3}', ["the keys version"]),
    ("latin1.csv", "question,answer\nQué?,Sí\n".encode("latin-1"), ["latin1.csv, line 2", "UTF-8", "iconv"]),
    ("latin1.jsonl", '{"question": "Qué?"}'.encode("cp1252"), ["line 1", "UTF-8"]),
    ("utf16.jsonl", lines(GOOD).decode().encode("utf-16-le"), ["line 1", "NUL bytes", "UTF-16"]),
    ("odd.jsonl", b"\xff\xfe" + b"\x00", ["cannot be read as UTF-16"]),
    ("nul.jsonl", b'{"question": "a\x00b"}', ["NUL"]),
    ("header.csv", b"question,answer\n", ["no rows below the header"]),
    ("noheader.csv", b"Who?,Me.\nWhere?,Here.\n", ["'question' is missing", "Who?", "question_column"]),
    ("wide.csv", b"question,answer\nWho?,Me, I think\n", ["row 1", "more values", "quotes"]),
    ("open.csv", b'question,answer\n"Who?,Me\n', ["line", "cannot be read as a table", "quotes"]),
    ("after.csv", b'question,answer\n"Who?"x,Me\n', ["cannot be read as a table"]),
    ("columns.csv", b"question,answer,answer\na,b,c\n", ["'answer' is there twice"]),
    ("long.csv", f"question,answer\n{LONG},b\n".encode(), ["field larger"]),
    ("blank.csv", b"question,answer\n ,Me\n", ["row 1", "'question' is empty"]),
    (
        "names.jsonl",
        lines({"prompt": "a", "response": "b"}),
        ["prompt, response", "--config.data.question_column=NAME"],
    ),
    ("nested.jsonl", lines({"qa": GOOD}, {"qa": GOOD}), ["'question' is missing", "qa"]),
    ("int.jsonl", lines(GOOD, {"question": 3}), ["int.jsonl, row 2", "is a int"]),
    ("null-question.jsonl", lines(GOOD, {"question": None}), ["row 2", "'question' is missing"]),
    ("list.jsonl", lines(GOOD, {"question": ["a"]}), ["row 2", "is a list"]),
    ("nan.jsonl", b'{"question": "a"}\n{"question": NaN}\n', ["row 2", "'question' is missing"]),
    ("nan.csv", b"id,question\n1,a\n2,NaN\n", ["nan.csv, row 2", "'question' is empty"]),
    ("comment.jsonl", lines(GOOD) + b"# half of them\n" + lines(GOOD), ["line 2", "a comment", "remove the line"]),
    ("first.jsonl", b"// all of them\n" + lines(GOOD), ["line 1", "a comment"]),
    ("chat.jsonl", lines({"messages": [{"role": "user", "content": "Who?"}]}), ["'question' is missing", "messages"]),
    ("twice.gz", gzip.compress(gzip.compress(lines(GOOD))), ["packed twice", "unpack it once"]),
    ("markdown.md", b"| a | b |\n|---|---|\n| c | d |\n", ["'question' is missing", "a, b"]),
    ("unseen.jsonl", lines(GOOD, {"question": "\u200b\u2060"}), ["row 2", "is empty"]),
    ("half.jsonl", b'{"question": "Who?"}\n{"question": "\\ud83d?"}\n', ["row 2", "lone surrogate"]),
    ("zero.jsonl", b'{"question": "Who?"}\n{"question": "a\\u0000b"}\n', ["row 2", "NUL character"]),
    ("answer.jsonl", lines({"question": "Who?", "answer": 1951}), ["row 1", "'answer' is a int"]),
    ("half-answer.jsonl", b'{"question": "Who?", "answer": "\\udc00"}\n', ["'answer' holds half a character"]),
    ("int.parquet", lambda: parquet({"question": [1, 2]}), ["row 1", "is a int"]),
    ("null.parquet", lambda: parquet({"question": ["a", None]}), ["row 2", "'question' is missing"]),
    ("turns.parquet", lambda: parquet({"messages": [[{"role": "user"}]]}), ["'question' is missing", "messages"]),
    ("cut.parquet", b"PAR1 not really", ["cut.parquet", "cannot be read as parquet"]),
    ("cut.arrow", b"ARROW1\x00\x00 not really", ["cannot be read as arrow"]),
    ("stream.arrow", b"\xff\xff\xff\xff\x00", ["cannot be read as arrow"]),
    ("rows.xlsx", packed("[Content_Types].xml", "xl/workbook.xml"), ["Excel", "CSV"]),
    ("rows.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", ["Excel", "CSV"]),
    ("rows.csv", packed("mimetype", "content.xml"), ["Excel"]),
    ("two.zip", packed("a.jsonl", "b.jsonl"), ["2 files (a.jsonl, b.jsonl)", "unpack"]),
    ("none.zip", packed(), ["no file"]),
    ("cut.zip", packed("a.jsonl")[:30], ["cannot be unpacked"]),
    ("cut.gz", gzip.compress(lines(GOOD))[:20], ["cannot be unpacked"]),
    ("bad.bz2", b"BZh91AY&SY nonsense", ["cannot be unpacked"]),
    ("bad.xz", b"\xfd7zXZ\x00 nonsense", ["cannot be unpacked"]),
    ("rows.zst", b"\x28\xb5\x2f\xfd rest", ["zstd", "unpack"]),
    ("rows.7z", b"7z\xbc\xaf\x27\x1c", ["7-Zip"]),
    ("rows.tar", b"rows.jsonl".ljust(257, b"\0") + b"ustar", ["tar archive"]),
    ("pointer.jsonl", POINTER.encode(), ["Git LFS pointer", "git lfs pull"]),
    ("rows.pkl", b"\x80\x04\x95 rest", ["pickle", "never opened"]),
    ("page.json", b"<!DOCTYPE html><html>404</html>", ["web page"]),
    ("rows.pdf", b"%PDF-1.7", ["PDF"]),
    ("rows.db", b"SQLite format 3\x00", ["database"]),
    ("rows.npy", b"\x93NUMPY\x01", ["numpy"]),
    ("rows.h5", b"\x89HDF\r\n", ["HDF5"]),
    ("rows.txt", b"Who?\nWhere?\n", ["unknown kind", ".jsonl", ".parquet"]),
    ("rows.yaml", b"- question: Who?\n- question: Where?\n", ["'question' is missing"]),
)
# As a retain file: each row needs an answer.
RETAIN = (
    ("keep.jsonl", lines({"question": "Who?"}), ["'answer' is missing", "answer_column"]),
    ("keep.csv", b"question,answer\nWho?,Me\nWhere?,\n", ["keep.csv, row 2", "'answer' is empty"]),
    ("short.csv", b"question,answer\nWho?,Me\nWhere?\n", ["short.csv, row 2", "'answer' is missing"]),
)
