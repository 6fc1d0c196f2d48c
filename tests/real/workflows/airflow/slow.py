"""Runs until it is canceled, or for ten minutes."""

import time
from datetime import datetime

from airflow.sdk import dag, task


@dag(dag_id="slow", schedule=None, start_date=datetime(2024, 1, 1), catchup=False)
def slow():
    @task
    def sleep():
        print("sleeping", flush=True)
        time.sleep(600)

    sleep()


slow()
