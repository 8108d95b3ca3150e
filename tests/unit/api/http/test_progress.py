from bennu.api.http.progress import draw_bar


def test_the_bar_is_dockers() -> None:
    assert draw_bar(512, 1024) == "[=========================>                         ]     512B/1.024kB"
    assert draw_bar(20, 0) == "     20B"
