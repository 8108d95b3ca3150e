"""A certificate authority of the test's own, made with the openssl command."""

import subprocess
from pathlib import Path


class Authority:
    """`issue()` gives a folder with ca.pem, cert.pem and key.pem, as DOCKER_CERT_PATH wants it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._openssl("req", "-x509", *NEW_KEY, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=Test CA")

    def intermediate(self) -> "Authority":
        """Another one, which this one vouches for; its clients show no more than their own certificates."""
        place = self.issue("intermediate", "/CN=Intermediate", "basicConstraints=CA:TRUE\n")
        (place / "ca.pem").write_bytes((place / "cert.pem").read_bytes())
        (place / "ca-key.pem").write_bytes((place / "key.pem").read_bytes())
        between = Authority.__new__(Authority)
        between.folder = place
        return between

    def issue(self, name: str, subject: str, extensions: str, days: int = 30) -> Path:
        """`subject` as openssl writes it: `/O=Ops/CN=alice`; less than 0 `days`: it is no longer valid."""
        place = self.folder / name
        place.mkdir()
        (place / "extensions").write_text(extensions)
        (place / "ca.pem").write_bytes((self.folder / "ca.pem").read_bytes())
        self._openssl("req", *NEW_KEY, "-keyout", place / "key.pem", "-out", place / "request", "-subj", subject)
        sign = (
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
            "-extfile",
            place / "extensions",
            "-days",
            str(days),
        )
        self._openssl("x509", "-req", "-in", place / "request", *sign, "-out", place / "cert.pem")
        return place

    def server(self, address: str) -> Path:
        return self.issue("server", "/CN=bennud", f"subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth\n")

    def client(self, name: str, subject: str) -> Path:
        return self.issue(name, subject, "extendedKeyUsage=clientAuth\n")

    def _openssl(self, *words: str | Path) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
