"""OTLP settings: the specification's variables, their precedence, and what their errors say and do not say."""

from pathlib import Path

import pytest

from keytrail.domain.errors import SettingsError
from keytrail.export.otlp_settings import OtlpSettings, Protocol, otlp_settings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
CANARY = "s3cr3t-value-of-a-header"


def test_the_defaults_are_the_specifications() -> None:
    """With nothing but an endpoint: gRPC, ten seconds, no compression, no headers, service keytrail."""
    assert otlp_settings(ENDPOINT) == OtlpSettings(
        endpoint="collector:4317",
        protocol=Protocol.GRPC,
        headers=(),
        timeout_seconds=10.0,
        gzip=False,
        insecure=True,
        certificate=None,
        client_key=None,
        client_certificate=None,
        service_name="keytrail",
        resource_attributes=(),
    )


@pytest.mark.parametrize(
    ("option", "general", "specific", "attribute", "expected"),
    [
        ("ENDPOINT", "http://all:4317", "http://logs:4317", "endpoint", "logs:4317"),
        ("PROTOCOL", "grpc", "http/protobuf", "protocol", Protocol.HTTP),
        ("HEADERS", "a=1,b=2", "c=3", "headers", (("c", "3"),)),
        ("TIMEOUT", "5000", "2500", "timeout_seconds", 2.5),
        ("COMPRESSION", "none", "gzip", "gzip", True),
    ],
)
def test_the_variable_for_logs_wins(option: str, general: str, specific: str, attribute: str, expected: object) -> None:
    """Each option's variable for logs replaces the general one as a whole, and an empty one does not."""
    variables = {f"OTEL_EXPORTER_OTLP_{option}": general, f"OTEL_EXPORTER_OTLP_LOGS_{option}": specific}
    settings = otlp_settings(ENDPOINT | variables)
    assert getattr(settings, attribute) == expected
    emptied = otlp_settings(ENDPOINT | variables | {f"OTEL_EXPORTER_OTLP_LOGS_{option}": " "})
    only_general = otlp_settings(ENDPOINT | {f"OTEL_EXPORTER_OTLP_{option}": general})
    assert emptied == only_general


@pytest.mark.parametrize(
    ("variable", "endpoint", "expected"),
    [
        ("ENDPOINT", "http://h:4318", "http://h:4318/v1/logs"),
        ("ENDPOINT", "http://h:4318/", "http://h:4318/v1/logs"),
        ("ENDPOINT", "https://h/otlp/", "https://h/otlp/v1/logs"),
        ("LOGS_ENDPOINT", "http://h:4318", "http://h:4318/"),
        ("LOGS_ENDPOINT", "http://h:4318/in/logs", "http://h:4318/in/logs"),
    ],
)
def test_only_the_general_http_endpoint_gets_the_path_of_logs(variable: str, endpoint: str, expected: str) -> None:
    """`/v1/logs` is appended to the general endpoint, while the one for logs is used as it is."""
    settings = otlp_settings(
        {f"OTEL_EXPORTER_OTLP_{variable}": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    )
    assert settings.endpoint == expected
    assert settings.insecure == endpoint.startswith("http:")


@pytest.mark.parametrize(
    ("endpoint", "insecure", "target", "plain"),
    [
        ("http://h:4317", "false", "h:4317", True),
        ("https://h:4317", "true", "h:4317", False),
        ("https://h", "", "h:443", False),
        ("http://h/", "", "h:80", True),
        ("https://[::1]:4317", "", "[::1]:4317", False),
        ("h:4317", "true", "h:4317", True),
        ("h:4317", "", "h:4317", False),
        ("dns:///h:4317", "TRUE", "dns:///h:4317", True),
        ("unix:///run/otel.sock", "true", "unix:///run/otel.sock", True),
    ],
)
def test_a_grpc_endpoints_scheme_decides_over_insecure(endpoint: str, insecure: str, target: str, plain: bool) -> None:
    """A scheme of http or https decides about TLS; the INSECURE variable speaks only for targets without them."""
    settings = otlp_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_INSECURE": insecure,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
    )
    assert (settings.endpoint, settings.insecure) == (target, plain)


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        ("http://h:4317", Protocol.GRPC),
        ("http://h:4318", Protocol.HTTP),
        ("https://h/otlp", Protocol.HTTP),
        ("https://h", Protocol.GRPC),
    ],
)
def test_without_a_protocol_the_endpoint_tells(endpoint: str, protocol: Protocol) -> None:
    """OTLP/HTTP's port or a path means http/protobuf, so that the usual endpoints work without a protocol."""
    assert otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).protocol is protocol


def test_headers_are_percent_decoded() -> None:
    """Names are lower-cased, values decoded, `=` may be in a value, space around pairs is dropped."""
    settings = otlp_settings(
        ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": " Api-Key = a%2Cb%3D , authorization=Basic dTpw==,x=,"}
    )
    assert settings.headers == (("api-key", "a,b="), ("authorization", "Basic dTpw=="), ("x", ""))


def test_headers_from_a_file_win(tmp_path: Path) -> None:
    """A headers file replaces both variables, so that no credential needs to be in our own environment."""
    file = tmp_path / "headers"
    file.write_text(f"authorization=Bearer%20{CANARY}\nx-tenant=a,x-zone=b\n")
    settings = otlp_settings(
        ENDPOINT | {"KEYTRAIL_OTLP_HEADERS_FILE": str(file), "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "z=1"}
    )
    assert settings.headers == (("authorization", f"Bearer {CANARY}"), ("x-tenant", "a"), ("x-zone", "b"))


def test_header_values_are_not_shown() -> None:
    """Neither repr nor str of the settings holds a header's value."""
    settings = otlp_settings(ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={CANARY}"})
    assert CANARY in dict(settings.headers).values()
    assert CANARY not in repr(settings) + str(settings)


def test_service_and_resource_attributes() -> None:
    """OTEL_SERVICE_NAME wins over service.name among the attributes, whose values are percent-decoded."""
    variables = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=listed,k8s.cluster.name=a%2Cb,team=x"}
    listed = otlp_settings(ENDPOINT | variables)
    assert listed.service_name == "listed"
    assert listed.resource_attributes == (("k8s.cluster.name", "a,b"), ("team", "x"))
    assert otlp_settings(ENDPOINT | variables | {"OTEL_SERVICE_NAME": "named"}).service_name == "named"


def test_certificate_files(tmp_path: Path) -> None:
    """All three files are taken as paths, the signal's before the general one."""
    files = {name: tmp_path / name for name in ("ca.pem", "key.pem", "cert.pem")}
    for file in files.values():
        file.write_text("PEM")
    settings = otlp_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:4317",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem",
            "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE": str(files["ca.pem"]),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(files["key.pem"]),
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE": str(files["cert.pem"]),
        }
    )
    assert (settings.certificate, settings.client_key, settings.client_certificate) == tuple(files.values())


HTTPS = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h:4317"}
HTTP = ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({}, ["OTEL_EXPORTER_OTLP_ENDPOINT", "such as http://localhost:4317", "found nothing"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://h"}, ["OTEL_EXPORTER_OTLP_ENDPOINT", "http or https", "'ftp'"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, ["a host"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:port"}, ["no URL"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, ["no URL"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1 x"}, ["OTEL_EXPORTER_OTLP_ENDPOINT"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "h:4318"}, ["http:// or https://"]),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h/in", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ["OTEL_EXPORTER_OTLP_ENDPOINT", "no path"],
        ),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc or http/protobuf", "'http/json'"],
        ),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "zstd"}, ["OTLP_LOGS_COMPRESSION", "gzip or none"]),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}, ["OTEL_EXPORTER_OTLP_TIMEOUT", "milliseconds", "'10'"]),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, ["milliseconds", "'10s'"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "h:1", "OTEL_EXPORTER_OTLP_INSECURE": "yes"}, ["true or false", "'yes'"]),
        (HTTPS | {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca"}, ["CERTIFICATE", "'/nowhere/ca'", "No such file"]),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/hosts"}, ["CERTIFICATE", "https"]),
        (HTTPS | {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/etc/hosts"}, ["CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_CERT"]),
        (ENDPOINT | {"OTEL_RESOURCE_ATTRIBUTES": "a=1,b"}, ["OTEL_RESOURCE_ATTRIBUTES", "position 2"]),
        (ENDPOINT | {"OTEL_RESOURCE_ATTRIBUTES": "a=%ff"}, ["OTEL_RESOURCE_ATTRIBUTES", "UTF-8"]),
        (ENDPOINT | {"KEYTRAIL_OTLP_HEADERS_FILE": "/nowhere"}, ["KEYTRAIL_OTLP_HEADERS_FILE", "readable"]),
    ],
)
def test_errors_name_variable_expectation_and_finding(environ: dict[str, str], parts: list[str]) -> None:
    """Each wrong value is a SettingsError that says where, what was expected and what was found."""
    with pytest.raises(SettingsError) as raised:
        otlp_settings(environ)
    assert all(part in str(raised.value) for part in parts), str(raised.value)


@pytest.mark.parametrize(
    "environ",
    [
        ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": CANARY},
        ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": f"a b={CANARY}"},
        ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": f"key={CANARY}%0A"},
        ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": f"key={CANARY}%ff"},
        ENDPOINT | {"OTEL_EXPORTER_OTLP_HEADERS": f"key-bin={CANARY}"},
        ENDPOINT | {"KEYTRAIL_OTLP_HEADERS_FILE": f"key={CANARY}"},
        HTTPS | {"OTEL_EXPORTER_OTLP_CLIENT_KEY": f"-----BEGIN PRIVATE KEY-----\n{CANARY}"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://user:{CANARY}@h:4317"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://h:4317/?key={CANARY}"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://user:{CANARY}"},
        HTTP | {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{CANARY}@h"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://h/{CANARY}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_errors_do_not_repeat_credentials(environ: dict[str, str]) -> None:
    """Whatever is wrong about a header, a key or an endpoint, its text is not in the error or in what caused it."""
    with pytest.raises(SettingsError) as raised:
        otlp_settings(environ)
    assert CANARY not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
