#!/usr/bin/env python3
"""A reader with nothing but schemas/ understands what the C encoder writes: tests/fleet/test_read_topic.py BUILD."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from read_topic import SCHEMAS, Reader, to_json

BUILD = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build")
GOLDEN = json.loads((SCHEMAS / "golden.json").read_text())


def written():
    """Records as the encoder made them just now, by name."""
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place, "written")
        subprocess.run([BUILD / "tests" / "test_wire_records"], env={**os.environ, "KILN_RECORDS_OUT": str(file)}, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {name: bytes.fromhex(text) for name, text in (line.split() for line in file.read_text().splitlines())}


class ReadTopic(unittest.TestCase):
    def test_every_record_of_the_encoder_is_understood(self):
        records, reader = written(), Reader()
        self.assertEqual(set(records), {name for name, _, _ in reader.schemas.values()})
        for one in GOLDEN:
            name, fields = reader.decode(records[one["record"]])
            self.assertEqual(name, one["record"])
            self.assertEqual(json.loads(to_json(fields)), one["value"])

    def test_there_is_an_example_of_every_record(self):
        self.assertEqual([one["record"] for one in GOLDEN],
                         [line.split()[1] for line in (SCHEMAS / "ids").read_text().splitlines() if line[0] != "#"])

    def test_only_the_schemas_are_needed(self):
        with tempfile.TemporaryDirectory() as place:
            for file in ("ids", *(path.name for path in SCHEMAS.glob("*.avsc"))):
                shutil.copy(SCHEMAS / file, place)
            program = shutil.copy(pathlib.Path(__file__).with_name("read_topic.py"), place)
            lines = "".join(one["hex"] + "\n" for one in GOLDEN)
            done = subprocess.run([sys.executable, "-I", program, "--schemas", place], input=lines, cwd=place, check=True,
                                  stdout=subprocess.PIPE, text=True)
        for one, line in zip(GOLDEN, done.stdout.splitlines(), strict=True):
            self.assertEqual(json.loads(line), {"record": one["record"], "value": one["value"]})

    def test_a_record_that_is_cut_or_too_long_is_not_misread(self):
        reader = Reader()
        for one in GOLDEN:
            value = bytes.fromhex(one["hex"])
            for broken in (*(value[:end] for end in range(len(value))), value + b"\0", b"\1" + value[1:]):
                with self.assertRaises(ValueError):
                    reader.decode(broken)


if __name__ == "__main__":
    unittest.main()
