"""What every Engine does; a backend's own test inherits this and says how one is opened."""

from __future__ import annotations

import numpy as np
import pytest

from dlv3deploy.core.engine import Engine


class EngineConformance:
    """Inherit, and give a fixture `engine` whose spec has a fixed input size."""

    def batch(self, engine: Engine, seed: int = 0) -> np.ndarray:
        spec = engine.spec.input
        return np.random.default_rng(seed).standard_normal((1, 3, spec.height, spec.width)).astype(np.float32)

    def test_it_fits_the_input_that_its_spec_describes(self, engine: Engine) -> None:
        height, width = engine.spec.input.height, engine.spec.input.width
        assert all(side in (None, want) for side, want in zip(engine.input_shape, (1, 3, height, width), strict=True))

    def test_it_returns_float_scores_for_every_class(self, engine: Engine) -> None:
        scores = engine.infer(self.batch(engine))
        assert scores.dtype == np.float32
        assert scores.shape[:2] == (1, len(engine.spec.classes))
        assert np.isfinite(scores).all()

    def test_the_same_input_gives_the_same_scores(self, engine: Engine) -> None:
        np.testing.assert_array_equal(engine.infer(self.batch(engine)), engine.infer(self.batch(engine)))

    def test_the_result_belongs_to_the_caller(self, engine: Engine) -> None:
        first = engine.infer(self.batch(engine))
        kept = first.copy()
        engine.infer(self.batch(engine, seed=1))
        np.testing.assert_array_equal(first, kept)
        first[:] = 0  # and may be written to

    def test_the_input_is_left_alone(self, engine: Engine) -> None:
        batch = self.batch(engine)
        kept = batch.copy()
        engine.infer(batch)
        np.testing.assert_array_equal(batch, kept)

    def test_a_view_that_is_not_contiguous_gives_the_same(self, engine: Engine) -> None:
        batch = self.batch(engine)
        view = np.ascontiguousarray(batch.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
        np.testing.assert_allclose(engine.infer(view), engine.infer(batch), atol=1e-5)

    @pytest.mark.parametrize("wrong", ["float64", "two channels", "no batch"])
    def test_a_wrong_batch_is_a_programming_error(self, engine: Engine, wrong: str) -> None:
        batch = self.batch(engine)
        bad = {"float64": batch.astype(np.float64), "two channels": batch[:, :2], "no batch": batch[0]}[wrong]
        with pytest.raises(ValueError, match="takes float32"):
            engine.infer(bad)

    def test_its_name_says_what_runs_it(self, engine: Engine) -> None:
        assert any(character.isdigit() for character in engine.name)

    def test_closing_twice_is_allowed(self, engine: Engine) -> None:
        with engine as opened:
            opened.infer(self.batch(opened))
        engine.close()
