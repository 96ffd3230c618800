from latentsync.training.callbacks.curves import plot_curves, read_curves


def test_curves_of_a_run_that_went_on_join_and_its_later_part_wins(tmp_path):
    for part, text in enumerate(
        (
            "step,epoch,train/loss\n0,0,3.0\n10,0,2.0\n20,0,9.0\n",
            "step,train/loss,val/loss\n20,1.0,\n20,,0.5\n",
        )
    ):
        (tmp_path / f"version_{part}").mkdir()
        (tmp_path / f"version_{part}" / "metrics.csv").write_text(text)
    curves = read_curves(tmp_path)
    assert curves == {"train/loss": [(0, 3.0), (10, 2.0), (20, 1.0)], "val/loss": [(20, 0.5)]}
    plot_curves(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
