"""What nobody should read is not written."""

import pytest

from lightning_metakd.storage.redaction import redact, redact_words


def test_secrets_are_hidden_and_numbers_and_words_are_not():
    settings = {
        "api_key": "abc",
        "hf_token": "abc",
        "model": {"n_tokens": 32, "tokenizer": "bpe", "keys": ["abc"], "password": None},
        "url": "https://me:abc@host/x",
        "list": [{"client.secret": "abc"}],
    }
    assert redact(settings) == {
        "api_key": "***",
        "hf_token": "***",
        "model": {"n_tokens": 32, "tokenizer": "bpe", "keys": ["***"], "password": None},
        "url": "https://***@host/x",
        "list": [{"client.secret": "***"}],
    }


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:p@ss@host/x@y", "https://***@host/x@y"),
        ("s3://key:word@host", "s3://***@host"),
        ("https://host/x?user=me&token=abc#top", "https://host/x?user=me&token=***#top"),
        ("get https://host?X-Amz-Signature=abc now", "get https://host?X-Amz-Signature=*** now"),
        ("https://host/a?monkey_size=3", "https://host/a?monkey_size=3"),
    ],
)
def test_access_inside_an_address_is_hidden(address, shown):
    assert redact(address) == shown


def test_secrets_among_the_words_of_a_command_are_hidden():
    words = ["fit", "--api_key", "abc", "--hf_token=abc", "--x", "me", "--url=https://a:b@c", "-v"]
    expected = [
        "fit",
        "--api_key",
        "***",
        "--hf_token=***",
        "--x",
        "me",
        "--url=https://***@c",
        "-v",
    ]
    assert redact_words(words) == expected
