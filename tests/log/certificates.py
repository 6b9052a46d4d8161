"""A certificate authority for one test: PEM files in its temporary folder."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Authority:
    """Signs certificates for the loopback. `ca` is the file that trusts it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        built = _certificate(self._name, self._name, self._key.public_key())
        authority = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._pem = authority.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self.ca = _written(folder / f"{name}.pem", self._pem)

    def signed(self, name: str, password: str | None = None) -> tuple[Path, Path]:
        """Return the files of a certificate and of its key, locked with `password`."""
        key = ec.generate_private_key(ec.SECP256R1())
        places = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        built = _certificate(_name(name), self._name, key.public_key())
        signed = built.add_extension(x509.SubjectAlternativeName(places), critical=False)
        pem = signed.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        lock = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        return (
            _written(self._folder / f"{name}.crt", pem + self._pem),
            _written(self._folder / f"{name}.key", private),
        )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    return (
        built.serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path
