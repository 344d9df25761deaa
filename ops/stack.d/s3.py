"""Requests to an S3 server, signed as AWS Signature Version 4 asks, for the start of a stack and for tests."""

import collections
import datetime
import hashlib
import hmac
import http.client
import ssl
import urllib.parse

Answer = collections.namedtuple("Answer", "status headers body")


def quoted(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-._~")


def signature(secret, day, region, text):
    key = ("AWS4" + secret).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class Client:
    """One user's connection. Thread: one at a time."""

    def __init__(self, endpoint, access, secret, region="us-east-1", ca=None, timeout=20):
        self.place = urllib.parse.urlsplit(endpoint)
        self.access, self.secret, self.region = access, secret, region
        self.ca, self.timeout = ca, timeout

    def connection(self):
        if self.place.scheme == "https":
            return http.client.HTTPSConnection(self.place.hostname, self.place.port, timeout=self.timeout,
                                               context=ssl.create_default_context(cafile=self.ca))
        return http.client.HTTPConnection(self.place.hostname, self.place.port, timeout=self.timeout)

    def request(self, method, path, query=None, headers=None, body=b"", sha256=None):
        """path is "/BUCKET/KEY", unquoted; query a dict, values "" for flags; headers are signed too."""
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        sent.update({"host": self.place.netloc, "x-amz-date": stamp,
                     "x-amz-content-sha256": sha256 or hashlib.sha256(body).hexdigest()})
        names = sorted(sent)
        text = "&".join(f"{quoted(name)}={quoted(value)}" for name, value in sorted((query or {}).items()))
        canonical = "\n".join([method, quoted(path, "/"), text, *(f"{name}:{sent[name].strip()}" for name in names), "",
                               ";".join(names), sent["x-amz-content-sha256"]])
        scope = f"{day}/{self.region}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        sent["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.access}/{scope}, SignedHeaders={';'.join(names)}, "
                                 f"Signature={signature(self.secret, day, self.region, to_sign)}")
        connection = self.connection()
        try:
            connection.request(method, quoted(path, "/") + ("?" + text if text else ""), body=body, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def must(self, *arguments, accept=(200, 204), **options):
        answer = self.request(*arguments, **options)
        if answer.status not in accept:
            raise RuntimeError(f"{arguments[0]} {arguments[1]}: {answer.status} {answer.body[:600].decode(errors='replace')}")
        return answer
