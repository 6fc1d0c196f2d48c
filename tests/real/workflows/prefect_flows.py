"""Flows that one local process serves as deployments."""

import time

from prefect import flow, get_run_logger, serve, task
from prefect.flow_runs import pause_flow_run


@task
def double(number: int) -> int:
    get_run_logger().info("doubling %s", number)
    time.sleep(4)  # longer than the time between two reads
    return 2 * number


@flow(name="add", persist_result=True)  # so that a retry of a run that succeeded is refused
def add(a: int = 1):
    return double(a) + 2


@task
def explode():
    raise ValueError("the input is bad")


@flow(name="boom", retries=1, retry_delay_seconds=1)
def boom():
    get_run_logger().warning("about to fail")
    explode()


@flow(name="slow")
def slow():
    get_run_logger().info("sleeping")
    time.sleep(600)


@flow(name="approve")
def approve():
    pause_flow_run(timeout=600, poll_interval=1)


if __name__ == "__main__":
    serve(*(one.to_deployment("served") for one in (add, boom, slow, approve)))
