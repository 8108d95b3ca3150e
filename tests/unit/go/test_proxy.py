"""Which requests go through a proxy: the rules of Go programs."""

import pytest

from bennu.go.proxy import proxy_for

ENVIRONMENT = {
    "HTTP_PROXY": "http://plain:1",
    "https_proxy": "secure:2",
    "NO_PROXY": "10.0.0.0/8,exact.example,.below.example,*.star.example,with-port.example:5000, 192.0.2.1 ,::2",
}


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://elsewhere.example/v2/", "http://plain:1"),
        ("https://elsewhere.example/v2/", "http://secure:2"),
        ("https://localhost:5000/", None),
        ("https://127.0.0.9/", None),
        ("https://[::1]:5000/", None),
        ("https://10.1.2.3/", None),
        ("https://11.1.2.3/", "http://secure:2"),
        ("https://exact.example/", None),
        ("https://sub.exact.example/", None),
        ("https://notexact.example/", "http://secure:2"),
        ("https://below.example/", "http://secure:2"),
        ("https://a.below.example/", None),
        ("https://a.star.example/", None),
        ("https://with-port.example:5000/", None),
        ("https://with-port.example/", "http://secure:2"),
        ("https://192.0.2.1/", None),
        ("https://[::2]/", None),
    ],
)
def test_the_environment_chooses_the_proxy_as_for_go_programs(url: str, proxy: str | None) -> None:
    assert proxy_for(url, ENVIRONMENT) == proxy


def test_without_variables_there_is_no_proxy_and_a_star_excludes_all() -> None:
    assert proxy_for("https://a.example/", {}) is None
    assert proxy_for("https://a.example/", ENVIRONMENT | {"NO_PROXY": "*"}) is None
