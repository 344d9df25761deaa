#!/usr/bin/env python3
"""Reads Kiln's records with nothing but the directory schemas/: what another client would write first.

    reader = Reader("schemas")
    name, fields = reader.decode(value)         # of a record of any topic; bytes and fixed come as bytes

From the command line: framed records as lines of hex on stdin, one line of JSON for each on stdout; or, with --brokers and
kafka-python installed, what lies on the named topics (--ca, --cert and --key are PEM files):

    tests/fleet/read_topic.py --brokers HOST:PORT kiln.events kiln.ledger
"""

import argparse
import json
import pathlib
import sys

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"


class Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or count > len(self.data) - self.at:
            raise ValueError(f"{count} bytes at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value >> 1 ^ -(value & 1)

    def read(self, schema, named):
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict):
            return self.read(kind, named)
        if kind in ("int", "long"):
            return self.number()
        if kind == "boolean":
            return self.take(1) == b"\1"
        if kind in ("bytes", "string"):
            value = self.take(self.number())
            return value.decode() if kind == "string" else value
        if kind == "fixed":
            return self.take(schema["size"])
        if kind == "array":
            return list(self.items(schema["items"], named))
        if kind == "record":
            return {field["name"]: self.read(field["type"], named) for field in schema["fields"]}
        return self.read(named[kind], named)

    def items(self, schema, named):
        while count := self.number():
            if count < 0:  # a block that tells its size
                count = -count
                self.number()
            for _ in range(count):
                yield self.read(schema, named)


def names_of(schema, named):
    if isinstance(schema, dict):
        if schema.get("type") in ("fixed", "record"):
            named[schema["name"]] = schema
        for part in (schema.get("type"), schema.get("items"), *schema.get("fields", [])):
            names_of(part, named)
    return named


class Reader:
    def __init__(self, schemas=SCHEMAS):
        schemas = pathlib.Path(schemas)
        self.schemas = {}  # id: (name of the record, schema, what it names)
        for line in (schemas / "ids").read_text().splitlines():
            if line and not line.startswith("#"):
                number, name, _ = line.split()
                schema = json.loads((schemas / f"{name}.avsc").read_text())
                self.schemas[int(number)] = name, schema, names_of(schema, {})

    def decode(self, value):
        if len(value) < 5 or value[0] != 0:
            raise ValueError("no frame")
        name, schema, named = self.schemas[int.from_bytes(value[1:5], "big")]
        body = Body(value[5:])
        fields = body.read(schema, named)
        if body.at != len(body.data):
            raise ValueError(f"{len(body.data) - body.at} bytes behind the {name}")
        return name, fields


def to_json(fields):
    return json.dumps(fields, ensure_ascii=False, default=lambda value: value.hex())


def read_kafka(arguments):
    import kafka  # from kafka-python

    tls = {"security_protocol": "SSL", "ssl_cafile": arguments.ca, "ssl_certfile": arguments.cert,
           "ssl_keyfile": arguments.key} if arguments.ca else {}
    consumer = kafka.KafkaConsumer(bootstrap_servers=arguments.brokers, enable_auto_commit=False, auto_offset_reset="earliest",
                                   consumer_timeout_ms=arguments.wait_ms, **tls)
    parts = [kafka.TopicPartition(topic, part) for topic in arguments.topics
             for part in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(parts)
    ends = consumer.end_offsets(parts)
    consumer.seek_to_beginning(*parts)
    while any(consumer.position(part) < ends[part] for part in parts):
        for records in consumer.poll(timeout_ms=arguments.wait_ms).values():
            yield from records


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", default=SCHEMAS)
    parser.add_argument("--brokers")
    for name in ("--ca", "--cert", "--key"):
        parser.add_argument(name)
    parser.add_argument("--wait-ms", type=int, default=5000)
    parser.add_argument("topics", nargs="*")
    arguments = parser.parse_args()
    reader = Reader(arguments.schemas)
    if not arguments.brokers:
        for line in sys.stdin:
            name, fields = reader.decode(bytes.fromhex(line))
            print(f'{{"record": "{name}", "value": {to_json(fields)}}}')
        return
    for record in read_kafka(arguments):
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "key": (record.key or b"").hex()}
        if record.value:  # else a tombstone
            place["record"], place["value"] = reader.decode(record.value)
        print(to_json(place), flush=True)


if __name__ == "__main__":
    main()
