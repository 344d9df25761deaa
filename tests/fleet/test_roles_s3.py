#!/usr/bin/env python3
"""Every role's storage user on every operation and place, against the table that is meant; and that nobody, not even the storage's
root user, changes or deletes a locked version. Usage: test_roles_s3.py BUILD
"""

import base64
import datetime
import hashlib
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from stack import Stack  # noqa: E402

BODY = b"what was stored first"

# Places, and what may be done there: p put, g get, v get by version, r lengthen a lock, d delete. All else is denied; D (delete a
# version) and s (shorten a lock) are tried everywhere and belong to nobody.
PLACES = ("quarantine/in/red/agent-1/job/a", "quarantine/in/red/agent-2/job/a", "quarantine/in/blue/agent-3/job/a",
          "quarantine/out/executor-1/job/1/a", "quarantine/out/executor-2/job/1/a",
          "inputs/cas/public/blob/aa/a", "inputs/cas/red/blob/aa/a",
          "vault/cas/public/blob/aa/a", "vault/cas/red/blob/aa/a", "vault/cas/blue/blob/aa/a",
          "vault/ac/public/1/aa/a", "vault/ac/red/1/aa/a", "vault/ac/blue/1/aa/a", "vault/trust/record", "vault/toolchain/a",
          "quarantine/in/red/hints/a/0", "quarantine/in/blue/hints/a/0")
#                in1   in2   in3   out1  out2  i.pub   i.red   c.pub   c.red   c.blue  a.pub   a.red   a.blue  trust   tool    h.red h.blue
EXPECTED = {
    "agent-1":    ("pd", "-", "-",  "-",  "-",  "-",    "-",    "gv",   "gv",   "-",    "gv",   "gv",   "-",    "gv",   "gv",   "pg", "-"),
    "agent-2":    ("-", "pd", "-",  "-",  "-",  "-",    "-",    "gv",   "gv",   "-",    "gv",   "gv",   "-",    "gv",   "gv",   "pg", "-"),
    "agent-3":    ("-", "-", "pd",  "-",  "-",  "-",    "-",    "gv",   "-",    "gv",   "gv",   "-",    "gv",   "gv",   "gv",   "-",  "pg"),
    "executor-1": ("-", "-", "-",   "p",  "-",  "gv",   "gv",   "gv",   "gv",   "gv",   "-",    "-",    "-",    "gv",   "gv",   "-",  "-"),
    "executor-2": ("-", "-", "-",   "-",  "p",  "gv",   "gv",   "gv",   "gv",   "gv",   "-",    "-",    "-",    "gv",   "gv",   "-",  "-"),
    "executor-3": ("-", "-", "-",   "-",  "-",  "gv",   "gv",   "gv",   "gv",   "gv",   "-",    "-",    "-",    "gv",   "gv",   "-",  "-"),
    "verifier-1": ("gd", "gd", "gd", "gd", "gd", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "gv",   "gv",   "gd", "gd"),
    "verifier-2": ("gd", "gd", "gd", "gd", "gd", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "gv",   "gv",   "gd", "gd"),
    "reader":     ("-", "-", "-",   "-",  "-",  "gv",   "gv",   "gv",   "gv",   "gv",   "gv",   "gv",   "gv",   "gv",   "gv",   "-",  "-"),
    "operator":   ("-", "-", "-",   "-",  "-",  "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr", "pgvr",   "-",  "-"),
}
# Buckets: l list, L list versions, k look at the lock's settings; x (delete it), y (suspend versions), z (set a policy) nobody.
BUCKETS = ("quarantine", "inputs", "vault")
EXPECTED_BUCKETS = {name: "lLk lLk lLk" if name.startswith(("verifier", "operator")) else "- lLk lLk" if name == "reader" else "- - -"
                    for name in EXPECTED}


def retention(days, mode="COMPLIANCE"):
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate></Retention>".encode()


def md5(body):
    return {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}


class Place:
    """One place with an object in it, put there by the root user."""

    def __init__(self, root, name):
        self.root, self.name = root, name
        self.path = f"/kiln-{name}"
        self.version = None
        self.seed()

    def seed(self):
        self.version = self.root.must("PUT", self.path, body=BODY).headers.get("x-amz-version-id")

    def which(self):
        return {"versionId": self.version} if self.version else {"versionId": "null"}

    def try_one(self, client, letter):
        """The status of one operation; what it changed is put right again."""
        if letter == "p":
            return client.request("PUT", self.path + "-fresh", body=b"x").status
        if letter == "g":
            return client.request("GET", self.path).status
        if letter == "v":
            return client.request("GET", self.path, self.which()).status
        if letter in "rs":
            body = retention(20 if letter == "r" else 0.01)
            return client.request("PUT", self.path, dict(self.which(), retention=""), md5(body), body).status
        answer = client.request("DELETE", self.path, self.which() if letter == "D" else None)
        if answer.status < 300:
            self.seed()
        return answer.status


def check(problems, who, what, where, status, allowed):
    good = status in (200, 204) if allowed else status == 403
    if not good:
        problems.append(f"{who}, {what} {where}: {status}, and it should be {'allowed' if allowed else 'denied'}")


def test_places(stack):
    problems, root = [], stack.s3("root")
    for index, name in enumerate(PLACES):
        place = Place(root, name)
        # Without versions, naming the null version is reading or deleting the object itself; without locks there is none to change.
        letters = "pgvrdDs" if place.version else "pgd"
        for who, row in EXPECTED.items():
            for letter in letters:
                status = place.try_one(stack.s3(who), letter)
                allowed = letter in row[index]
                if letter == "s":  # refused by the lock (400) or for want of the right (403)
                    if status not in (400, 403):
                        problems.append(f"{who}, shorten the lock of {name}: {status}")
                    continue
                check(problems, who, letter, name, status, allowed)
    return problems


def test_buckets(stack):
    problems = []
    suspend = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
    public = (b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:*"],'
              b'"Resource":["arn:aws:s3:::kiln-vault/*"]}]}')
    operations = {"l": lambda client, path: client.request("GET", path, {"list-type": "2"}),
                  "L": lambda client, path: client.request("GET", path, {"versions": ""}),
                  "k": lambda client, path: client.request("GET", path, {"object-lock": ""}),
                  "x": lambda client, path: client.request("DELETE", path, headers={"x-minio-force-delete": "true"}),
                  "y": lambda client, path: client.request("PUT", path, {"versioning": ""}, md5(suspend), suspend),
                  "z": lambda client, path: client.request("PUT", path, {"policy": ""}, md5(public), public)}
    for who, row in EXPECTED_BUCKETS.items():
        for bucket, allowed in zip(BUCKETS, row.split()):
            for letter, operation in operations.items():
                status = operation(stack.s3(who), f"/kiln-{bucket}").status
                if letter == "k" and bucket == "quarantine" and letter in allowed:
                    continue  # it has no lock to look at
                if letter == "y" and who == "operator" and bucket != "quarantine":
                    if status < 400:
                        problems.append(f"{who} suspended the versions of {bucket}")
                    continue
                check(problems, who, letter, bucket, status, letter in allowed or (letter, who, bucket) == ("y", "operator", "quarantine"))
    return problems


def changes(path, version, root_path):
    """Ways to try to change or remove one locked version: (what, method, path, query, headers, body)."""
    bypass = {"x-amz-bypass-governance-retention": "true"}
    which = {"versionId": version}
    yield "delete it", "DELETE", path, which, {}, b""
    yield "delete it past governance", "DELETE", path, which, bypass, b""
    yield "force delete", "DELETE", path, {}, {"x-minio-force-delete": "true"}, b""
    for what, body in (("shorten its lock", retention(0.01)), ("make it governance", retention(20, "GOVERNANCE")),
                       ("remove its lock", b"<Retention></Retention>")):
        yield what, "PUT", path, dict(which, retention=""), dict(md5(body), **bypass), body
    yield "put over that version", "PUT", path, which, {}, b"other bytes"
    yield "copy over that version", "PUT", path, which, {"x-amz-copy-source": root_path}, b""
    many = f"<Delete><Object><Key>{path.split('/', 2)[2]}</Key><VersionId>{version}</VersionId></Object></Delete>".encode()
    yield "delete it among many", "POST", "/" + path.split("/")[1], {"delete": ""}, dict(md5(many), **bypass), many
    yield "delete the bucket", "DELETE", "/" + path.split("/")[1], {}, {"x-minio-force-delete": "true"}, b""
    off = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
    yield "suspend versions", "PUT", "/" + path.split("/")[1], {"versioning": ""}, md5(off), off


def test_nobody_changes_a_locked_version(stack):
    problems, root = [], stack.s3("root")
    other = root.must("PUT", "/kiln-quarantine/in/red/agent-1/other", body=b"other bytes")
    assert other.status == 200
    for bucket in ("inputs", "vault"):
        path = f"/kiln-{bucket}/cas/red/blob/bb/kept"
        first = root.must("PUT", path, body=BODY)
        version = first.headers["x-amz-version-id"]
        before = root.must("GET", path, {"versionId": version}).headers["x-amz-object-lock-retain-until-date"]
        for who in [*EXPECTED, "root"]:
            for what, method, where, query, headers, body in changes(path, version, "/kiln-quarantine/in/red/agent-1/other"):
                answer = stack.s3(who).request(method, where, query, headers, body)
                now = root.request("GET", path, {"versionId": version})
                lock = (now.headers.get("x-amz-object-lock-mode"), now.headers.get("x-amz-object-lock-retain-until-date"))
                if now.status != 200 or now.body != BODY or lock != ("COMPLIANCE", before):
                    problems.append(f"{who}, {what}: answered {answer.status}, and now {now.status} {lock} {now.body[:40]}")
    # The shadow and the delete marker, which root can put over it, do not touch the version.
    root.must("PUT", path, body=b"a newer one")
    root.must("DELETE", path)
    if root.must("GET", path, {"versionId": version}).body != BODY or root.request("GET", path).status != 404:
        problems.append("a delete marker: the version is still to be had, the plain name is not")
    return problems


def main():
    passed = failed = 0
    with Stack(sys.argv[1]) as stack:
        for name, test in list(globals().items()):
            if not re.match("test_", name):
                continue
            problems = test(stack)
            print(f"{'FAILED' if problems else 'ok':8} {name[5:].replace('_', ' ')}", *problems, sep="\n         ")
            passed, failed = passed + (not problems), failed + bool(problems)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
