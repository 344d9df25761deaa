"""Mutual TLS: an authority made for this stack, a certificate for the servers, one for each principal (its name is the CN)."""

import os
import pathlib
import secrets

from install import run

DAYS = "30"


def private(path, text):
    """Writes a file that only its owner reads."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)


def key_text():
    text = run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
    begin = text.index("-----BEGIN PRIVATE KEY-----")
    return text[begin:]


class Authority:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.certificate = self.directory / "ca.crt"
        self.key = self.directory / "ca.key"

    def make(self):
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        private(self.key, key_text())
        run(["openssl", "req", "-x509", "-new", "-key", self.key, "-subj", "/CN=stack authority", "-days", DAYS, "-out", self.certificate,
             "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"])

    def issue(self, name, key, certificate, server=False):
        """A key and certificate for CN=name; a server's is good for loopback."""
        private(key, key_text())
        names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"] if server else []
        usage = "serverAuth,clientAuth" if server else "clientAuth"
        run(["openssl", "req", "-x509", "-new", "-key", key, "-CA", self.certificate, "-CAkey", self.key, "-subj", f"/CN={name}",
             "-days", DAYS, "-set_serial", str(secrets.randbits(63)), "-out", certificate, "-addext", "basicConstraints=critical,CA:FALSE",
             "-addext", f"extendedKeyUsage={usage}", *names])
