import pytest
import torch

from learner import flow


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("steps", [1, 3])
def test_constant_velocity_is_exact(solver, steps):
    x0, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    x1 = flow.integrate(lambda x, s: v, x0, steps=steps, solver=solver)
    torch.testing.assert_close(x1, x0 + v)


def test_midpoint_is_exact_for_velocity_linear_in_time_and_euler_is_not():
    x0 = torch.zeros(1, 1, dtype=torch.float64)

    def velocity(x, s):
        return 2.0 * s[:, None]

    assert flow.integrate(velocity, x0, steps=2, solver="midpoint").item() == pytest.approx(1.0)
    assert flow.integrate(velocity, x0, steps=2, solver="euler").item() == pytest.approx(0.5)


def test_two_partial_integrations_equal_one():
    def velocity(x, s):
        return torch.sin(3 * x) + s[:, None]

    x0 = torch.randn(4, 2, dtype=torch.float64)
    whole = flow.integrate(velocity, x0, steps=8)
    half = flow.integrate(velocity, x0, steps=4, s1=0.5)
    torch.testing.assert_close(flow.integrate(velocity, half, steps=4, s0=0.5), whole)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_grid_that_stops_early_takes_one_step_for_the_rest_and_parts_meet_on_it(solver):
    def velocity(x, s):
        return torch.sin(3 * x) + s[:, None]

    start = flow.FlowState(x=torch.randn(4, 2, dtype=torch.float64), s=0.0)
    grid = flow.Grid(steps=3, stop=0.6, solver=solver)
    whole = flow.advance(velocity, start, 1.0, grid)
    expected = flow.integrate(velocity, start.x, steps=3, s1=0.6, solver=solver)
    torch.testing.assert_close(flow.advance(velocity, start, 0.6, grid).x, expected)
    expected = flow.integrate(velocity, expected, steps=1, s0=0.6, solver=solver)
    torch.testing.assert_close(whole.x, expected)
    part = flow.advance(velocity, start, 0.4, grid)
    torch.testing.assert_close(flow.advance(velocity, part, 1.0, grid).x, whole.x)
    assert (part.s, whole.s) == (0.4, 1.0)
    with pytest.raises(ValueError, match=r"stop=0\.2"):
        flow.advance(velocity, part, 0.2, grid)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_a_given_number_of_steps_is_taken_from_wherever_a_flow_stands(solver):
    asked = []

    def velocity(x, s):
        asked.append(s[0].item())
        return torch.sin(3 * x) + s[:, None]

    part = flow.FlowState(x=torch.randn(4, 2, dtype=torch.float64), s=0.25)
    grid = flow.Grid(steps=5, stop=0.6, solver=solver)
    for steps in (1, 2):
        asked.clear()
        found = flow.advance(velocity, part, 1.0, grid, steps=steps)
        assert len(asked) == steps * grid.evaluations_per_step  # and none for the grid's own stop
        expected = flow.integrate(velocity, part.x, steps=steps, s0=0.25, solver=solver)
        torch.testing.assert_close(found.x, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="steps=0"):
        flow.advance(velocity, part, 1.0, grid, steps=0)


def test_a_clean_predictor_that_knows_the_answer_lands_on_it():
    x1 = torch.randn(3, 4)

    def velocity(x, s):
        return flow.velocity_from_output(x1, x, s, predict="clean", floor=1e-6)

    torch.testing.assert_close(flow.integrate(velocity, torch.randn(3, 4), steps=5), x1)


def test_path_ends_and_velocity():
    x, noise = torch.randn(6, 3), torch.randn(6, 3)
    s = torch.tensor([0.0, 1.0, 0.25, 0.5, 0.75, 0.1])
    path = flow.sample_path(x, noise, s)
    torch.testing.assert_close(path.x_s[0], noise[0])
    torch.testing.assert_close(path.x_s[1], x[1])
    torch.testing.assert_close(path.x_s, (1 - s[:, None]) * noise + s[:, None] * x)
    torch.testing.assert_close(path.dx_s, x - noise)


def test_clean_error_is_the_velocity_error_away_from_the_floor():
    x, noise, output = torch.randn(3, 50, 4, dtype=torch.float64)
    path = flow.sample_path(x, noise, torch.rand(50, dtype=torch.float64) * 0.8)
    velocity = flow.velocity_from_output(output, path.x_s, path.s, predict="clean", floor=0.2)
    expected = (velocity - path.dx_s).square()
    torch.testing.assert_close(flow.velocity_error(output, path, predict="clean", floor=0.2), expected)


def test_times_lie_in_the_unit_interval_and_lean_to_noise():
    rng = torch.Generator().manual_seed(0)
    even = flow.sample_times((20_000,), 1.0, rng, torch.device("cpu"))
    early = flow.sample_times((20_000,), 2.0, rng, torch.device("cpu"))
    assert 0.0 <= float(early.min()) <= float(early.max()) <= 1.0
    assert float(even.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(early.mean()) == pytest.approx(1 / 3, abs=0.01)  # Beta(1, 2)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"s0": 0.7, "s1": 0.2}, "s0"), ({"steps": 0}, "steps"), ({"solver": "rk4"}, "solver"), ({"s1": 1.5}, "s1")],
)
def test_impossible_integration_is_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        flow.integrate(lambda x, s: x, torch.zeros(1, 1), **{"steps": 2, **kwargs})


def test_times_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="s: shape"):
        flow.sample_path(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3))
