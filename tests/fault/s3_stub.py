#!/usr/bin/env python3
"""An S3 server that fails as it is told, on loopback, for tests of the S3 store.

    s3_stub.py [--tls DIR]      prints its endpoint, ends when its stdin does; --tls: DIR/cert.pem is made, and is its own authority

It checks every SigV4 signature by its own reckoning, and keeps versions and locks. What it does wrong is named by the request:
- by the last part of a key (FAULTS below), for any method;
- by the bucket prefix "lax-CAPABILITY": that capability is not honoured (see Bucket).
GET /BUCKET/count/KEY gives how many requests there were for KEY (of any method), GET /BUCKET/seen/KEY the last one's head.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
from xml.sax.saxutils import escape

SECRET = "stub-secret"
FOREVER = "2099-01-01T00:00:00Z"


def now(days=0):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Request:
    def __init__(self, head, stream):
        lines = head.decode("latin-1").split("\r\n")
        self.head = head
        self.method, self.target, _ = lines[0].split(" ", 2)
        self.headers = {}
        for line in lines[1:]:
            if line:
                name, value = line.split(":", 1)
                self.headers[name.lower()] = value.strip()
        path, _, query = self.target.partition("?")
        self.raw_path, self.raw_query = path, query
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        parts = urllib.parse.unquote(path).lstrip("/").split("/", 1)
        self.bucket, self.key = parts[0], parts[1] if len(parts) > 1 else ""
        self.length = int(self.headers.get("content-length", "0"))
        self.stream = stream
        self.body = b""

    def read_body(self):
        self.body = self.stream.read(self.length)

    def signature_is_good(self):
        given = self.headers.get("authorization", "")
        if given.startswith("AWS "):
            return True  # libs3's older scheme
        fields = dict(part.strip().split("=", 1) for part in given.removeprefix("AWS4-HMAC-SHA256 ").split(","))
        day, region, service, _ = fields["Credential"].split("/")[1:]
        names = fields["SignedHeaders"].split(";")
        must = {name for name in self.headers if name.startswith("x-amz-")} | {"host"}
        must |= {"content-md5", "if-none-match", "range"} & set(self.headers)
        if not must <= set(names):
            return False
        pairs = urllib.parse.parse_qsl(self.raw_query, keep_blank_values=True)
        quote = lambda text: urllib.parse.quote(text, safe="-._~")  # noqa: E731
        canonical = "\n".join([
            self.method, urllib.parse.quote(urllib.parse.unquote(self.raw_path, "latin-1"), safe="/-._~", encoding="latin-1"),
            "&".join(sorted(f"{quote(name)}={quote(value)}" for name, value in pairs)),
            *(f"{name}:{' '.join(self.headers[name].split())}" for name in names), "", ";".join(names), self.headers["x-amz-content-sha256"]])
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], f"{day}/{region}/{service}/aws4_request",
                          hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + SECRET).encode()
        for part in (day, region, service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == fields["Signature"]


def answer(status, body=b"", headers=None, method="GET", length=None):
    lines = [f"HTTP/1.1 {status} X"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body) if length is None else length}", "", ""]
    return "\r\n".join(lines).encode() + (b"" if method == "HEAD" else body)


def refusal(status, code):
    return answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode())


class Version:
    def __init__(self, name, body, mode, until, marker=False):
        self.name, self.body, self.mode, self.until, self.marker = name, body, mode, until, marker

    def headers(self):
        found = {"x-amz-version-id": self.name, "ETag": '"' + hashlib.md5(self.body).hexdigest() + '"'}
        if self.mode:
            found.update({"x-amz-object-lock-mode": self.mode, "x-amz-object-lock-retain-until-date": self.until})
        return found


class Bucket:
    """Versions of keys, the newest last. `lax` names the one thing that it does not honour."""

    def __init__(self, lax):
        self.lax, self.keys, self.made = lax, {}, 0

    def put(self, request):
        headers, key = request.headers, request.key
        if "retention" in request.query:
            return self.retain(request)
        if self.lax != "sha256" and headers.get("x-amz-content-sha256", "") not in ("", hashlib.sha256(request.body).hexdigest()):
            return refusal(400, "XAmzContentSHA256Mismatch")
        md5 = base64.b64encode(hashlib.md5(request.body).digest()).decode()
        if self.lax != "md5" and headers.get("content-md5", md5) != md5:
            return refusal(400, "BadDigest")
        versions = self.keys.setdefault(key, [])
        if self.lax != "create" and headers.get("if-none-match") == "*" and versions and not versions[-1].marker:
            return refusal(412, "PreconditionFailed")
        if "versionId" in request.query:
            if self.lax != "replace":
                return refusal(403, "AccessDenied")
            for version in versions:
                if version.name == request.query["versionId"]:
                    version.body = request.body
            return answer(200, headers={"x-amz-version-id": request.query["versionId"]})
        self.made += 1
        mode, until = headers.get("x-amz-object-lock-mode", "COMPLIANCE"), headers.get("x-amz-object-lock-retain-until-date", now(1))
        if self.lax == "mode":
            mode = "GOVERNANCE"
        if self.lax == "date":
            until = now(-1)
        version = Version(f"v{self.made:06}", request.body, mode, until)
        if self.lax == "change":
            version.body += b"!"
        versions.append(version)
        said = version.headers()
        if self.lax == "versions":
            del said["x-amz-version-id"]
        return answer(200, headers=said)

    def retain(self, request):
        until = request.body.partition(b"<RetainUntilDate>")[2].partition(b"<")[0].decode()
        for version in self.keys.get(request.key, []):
            if version.name == request.query["versionId"]:
                if until < version.until and self.lax != "shorten":
                    return refusal(400, "InvalidRequest")
                version.until = until
                return answer(200)
        return refusal(404, "NoSuchVersion")

    def get(self, request):
        if "versions" in request.query:
            return self.list(request)
        if "versioning" in request.query:
            return answer(200, b"<VersioningConfiguration><Status>%s</Status></VersioningConfiguration>" %
                          (b"Suspended" if self.lax == "versioning" else b"Enabled"))
        if "object-lock" in request.query:
            if self.lax == "bucket":
                return refusal(404, "ObjectLockConfigurationNotFoundError")
            return answer(200, b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>%s</Mode>"
                               b"<Days>2</Days></DefaultRetention></Rule></ObjectLockConfiguration>" %
                          (b"GOVERNANCE" if self.lax == "default" else b"COMPLIANCE"))
        versions = self.keys.get(request.key, [])
        wanted = request.query.get("versionId")
        found = [version for version in versions if version.name == wanted] if wanted and self.lax != "pin" else versions[-1:]
        if not found or found[0].marker:
            return refusal(404, "NoSuchKey")
        said = dict(found[0].headers(), **({"x-amz-version-id": wanted} if wanted else {}))
        return answer(200, found[0].body, said, request.method)

    def list(self, request):
        prefix, after = request.query.get("prefix", ""), request.query.get("key-marker", "")
        most = min(int(request.query.get("max-keys", 1000)), 3)  # small pages, so that turning them is tried
        entries = [(key, version) for key in sorted(self.keys) if key.startswith(prefix) for version in reversed(self.keys[key])]
        if after:
            marker = request.query.get("version-id-marker")
            at = next((i for i, (key, version) in enumerate(entries) if key == after and version.name == marker), None)
            entries = entries[at + 1:] if at is not None else [entry for entry in entries if entry[0] > after]
        page, more = entries[:most], len(entries) > most
        quoted = lambda text: urllib.parse.quote(text, safe="/")  # noqa: E731
        text = "<ListVersionsResult><EncodingType>url</EncodingType>"
        for key, version in page:
            kind = "DeleteMarker" if version.marker else "Version"
            size = "" if version.marker else f"<Size>{len(version.body)}</Size>"
            text += f"<{kind}><Key>{escape(quoted(key))}</Key><VersionId>{version.name}</VersionId>{size}</{kind}>"
        text += f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        if more:
            text += f"<NextKeyMarker>{escape(quoted(page[-1][0]))}</NextKeyMarker><NextVersionIdMarker>{page[-1][1].name}</NextVersionIdMarker>"
        return answer(200, (text + "</ListVersionsResult>").encode())

    def delete(self, request):
        versions = self.keys.get(request.key, [])
        locked = "quarantine" not in request.bucket
        if "versionId" in request.query:
            if locked and self.lax != "delete":
                return refusal(403, "AccessDenied")
            self.keys[request.key] = [version for version in versions if version.name != request.query["versionId"]]
        elif locked and self.lax != "marker":
            return refusal(403, "AccessDenied")
        elif locked:
            self.made += 1
            versions.append(Version(f"v{self.made:06}", b"", "", "", True))
        else:
            self.keys.pop(request.key, None)
        return answer(204)


GOOD = {"x-amz-version-id": "v1", "x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": FOREVER}


def head(*changes, without=()):
    found = {name: value for name, value in GOOD.items() if name not in without}
    for change in changes:
        found.update(change)
    return found



def text(request):
    return b"" if request.method == "PUT" else b"content"


# Each gives bytes to send and whether the connection goes on. (None, False): no answer, the connection stays open until the client goes.
def fault(function):
    return lambda request, count: (function(request, count), False)


FAULTS = {
    "good": lambda request, count: (answer(200, text(request), head(), request.method), True),
    "cut": fault(lambda request, count: answer(200, b"content", head(), length=1000)),
    "cut-once": lambda request, count: (answer(200, text(request), head(), length=1000 if count == 1 else None), count > 1),
    "chunked": fault(lambda request, count: b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n"),
    "cut-chunked": fault(lambda request, count: b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n"),
    "no-length": fault(lambda request, count: b"HTTP/1.1 200 X\r\nx-amz-version-id: v1\r\n\r\ncontent"),
    "two-lengths": fault(lambda request, count: answer(200, b"content", {"Content-Length": 3})),
    "two-versions": fault(lambda request, count: answer(200, b"content", {"x-amz-version-id": "v1", "X-Amz-Version-Id": "v2"})),
    "status-304": fault(lambda request, count: b"HTTP/1.1 304 X\r\nx-amz-version-id: v1\r\n\r\n"),
    "status-206": fault(lambda request, count: answer(206, b"content", head())),
    "status-204": fault(lambda request, count: b"HTTP/1.1 204 X\r\n\r\n"),
    "redirect": fault(lambda request, count: answer(307, b"", {"Location": f"/{request.bucket}/trap"})),
    "busy-twice": lambda request, count: (refusal(503, "SlowDown") if count < 3 else answer(200, text(request), head()), True),
    "busy": lambda request, count: (refusal(503, "SlowDown"), True),
    "unreadable": lambda request, count: (answer(200, text(request), head(), method="HEAD") if request.method == "HEAD"
                                          else refusal(503, "SlowDownRead"), True),
    "empty-500": lambda request, count: (answer(500), True),
    "conflict": lambda request, count: (refusal(409, "ConditionalRequestConflict"), True),
    "continue-403": lambda request, count: (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(403), True),
    "continue-503": lambda request, count: (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(503), True),
    "continue-200": lambda request, count: (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(200, text(request), head()), True),
    "silent": lambda request, count: (None, False),
    "gone": fault(lambda request, count: b""),
    "garbage": fault(lambda request, count: b"what do you want?\r\n\r\n"),
    "huge": fault(lambda request, count: answer(200, b"content", head(), length=20 << 30)),
    "huge-head": fault(lambda request, count: answer(200, b"content", {f"x-{i}": "y" * 900 for i in range(100)})),
    "huge-error": fault(lambda request, count: answer(403, b"<Error><Code>" + b"x" * 3_000_000)),
    "other-version": fault(lambda request, count: answer(200, b"content", head({"x-amz-version-id": "v2"}))),
    "no-version": fault(lambda request, count: answer(200, b"content", head(without=["x-amz-version-id"]))),
    "no-lock": fault(lambda request, count: answer(200, b"content", {"x-amz-version-id": "v1"})),
    "no-date": fault(lambda request, count: answer(200, b"content", head(without=["x-amz-object-lock-retain-until-date"]))),
    "governance": fault(lambda request, count: answer(200, b"content", head({"x-amz-object-lock-mode": "GOVERNANCE"}))),
    "expired": fault(lambda request, count: answer(200, b"content", head({"x-amz-object-lock-retain-until-date": now(-1)}))),
    "bad-date": fault(lambda request, count: answer(200, b"content", head({"x-amz-object-lock-retain-until-date": "forever"}))),
    "other-bytes": lambda request, count: (answer(200, text(request).upper(), head()), True),
    "wrong-etag": lambda request, count: (answer(200, b"", {"ETag": '"' + "0" * 32 + '"'}), True),
}


class Server:
    def __init__(self, tls):
        self.lock = threading.Lock()
        self.buckets, self.counts, self.seen = {}, {}, {}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.tls = tls
        scheme = "https" if tls else "http"
        print(f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}", flush=True)

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, connection.makefile("rb") as stream:
                while self.one(connection, stream):
                    pass
        except (OSError, ValueError):
            pass

    def one(self, connection, stream):
        text = b""
        while not text.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return False
            text += line
        request = Request(text, stream)
        name = request.key.rpartition("/")[2]
        if name == "early-200":  # before the body
            connection.sendall(answer(200, headers=head()))
            return False
        request.read_body()
        with self.lock:
            count = self.counts[request.key] = self.counts.get(request.key, 0) + 1
            self.seen[request.key] = text
            said, goes_on = self.answer(request, name, count)
        if said is None:
            stream.read(1)
            return False
        connection.sendall(said)
        return goes_on

    def answer(self, request, name, count):
        if not request.signature_is_good():
            return refusal(403, "SignatureDoesNotMatch"), True
        if request.key.startswith("count/"):
            return answer(200, str(self.counts.get(request.key[6:], 0)).encode()), True
        if request.key.startswith("seen/"):
            return answer(200, self.seen.get(request.key[5:], b"")), True
        if name in FAULTS:
            return FAULTS[name](request, count)
        lax = request.bucket.split("-")[1] if request.bucket.startswith("lax-") else ""
        bucket = self.buckets.setdefault(request.bucket, Bucket(lax))
        if lax == "down":
            return refusal(503, "SlowDown"), True
        return {"PUT": bucket.put, "GET": bucket.get, "HEAD": bucket.get, "DELETE": bucket.delete}[request.method](request), True


def authority(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"],
                   check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    return context


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tls", metavar="DIR")
    options = parser.parse_args()
    server = Server(authority(options.tls) if options.tls else None)
    threading.Thread(target=server.run, daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
