"""Succeeds: two tasks, one after the other."""

import time
from datetime import datetime

from airflow.sdk import dag, task


@dag(dag_id="add", schedule=None, start_date=datetime(2024, 1, 1), catchup=False)
def add():
    @task
    def read(**context):
        return context["dag_run"].conf["a"]

    @task
    def total(number):
        print("adding to", number)
        time.sleep(4)  # longer than the time between two reads
        return {"total": number + 2}

    total(read())


add()
