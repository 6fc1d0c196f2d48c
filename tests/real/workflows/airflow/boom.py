"""Fails: one task, which is retried once, and one that never runs."""

import logging
from datetime import datetime, timedelta

from airflow.sdk import dag, task


@dag(dag_id="boom", schedule=None, start_date=datetime(2024, 1, 1), catchup=False)
def boom():
    @task(retries=1, retry_delay=timedelta(seconds=1))
    def explode():
        logging.getLogger("workflow").warning("about to fail")
        raise ValueError("the input is bad")

    @task
    def after():
        print("never runs")

    explode() >> after()


boom()
