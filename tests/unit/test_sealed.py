"""What crosses a broker is signed: what somebody else has written is never loaded."""

from __future__ import annotations

import base64
import os
import pickle

import pytest
from django.test import override_settings

from carpool.executors.sealed import BadSeal, seal, unseal


@pytest.mark.parametrize("data", [b"", b"a chunk", b"rows " * 10_000, os.urandom(10_000)])
def test_what_was_sealed_comes_back(data):
    assert unseal(seal(data, "a request"), "a request") == data


def test_what_repeats_itself_is_compressed():
    assert len(seal(b"rows " * 10_000, "")) < 1_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64",
        base64.b64encode(b"p" + pickle.dumps(print)).decode(),
        ":" + base64.b64encode(b"p" + pickle.dumps(print)).decode(),
        seal(b"", "").partition(":")[0] + ":" + base64.b64encode(b"pmine").decode(),
    ],
)
def test_what_was_not_signed_is_refused(text):
    with pytest.raises(BadSeal):
        unseal(text, "a request")


def test_a_request_is_no_answer():
    with pytest.raises(BadSeal, match="SECRET_KEY"):
        unseal(seal(b"data", "a request"), "an answer")


def test_another_key_is_refused_and_a_fallback_will_do():
    with override_settings(SECRET_KEY="another"):
        text = seal(b"data", "a request")
    with pytest.raises(BadSeal, match="the same"):
        unseal(text, "a request")
    with override_settings(SECRET_KEY_FALLBACKS=["another"]):
        assert unseal(text, "a request") == b"data"
