"""What skopeo's last words become."""

from bennu.images.skopeo import failure


def test_the_reason_is_told_without_the_frame_of_a_log_line() -> None:
    line = 'time="2026-01-01T00:00:00Z" level=fatal msg="reading manifest \\"x\\": no such image"\n'
    assert str(failure(line)) == 'reading manifest "x": no such image'
    assert str(failure("killed\n")) == "killed"
