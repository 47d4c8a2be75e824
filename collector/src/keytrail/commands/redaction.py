"""What a command says of settings and manifests, without the credentials that somebody wrote into them by mistake."""


def redacted(text: str) -> str:
    """Return the text without what looks like a credential: for errors, and for the own log."""
    from keytrail.decode.redact import Redactor  # its patterns take 0.1 s to compile, and most commands say nothing

    return Redactor().redact(text)[0]
