"""What all forks of the program share beside its modules; imported as the last by the process that they fork from."""

import gc

import boto3

# The first client of a process reads botocore's description of S3, which takes longer than most commands take.
boto3.client("s3", region_name="none", aws_access_key_id="none", aws_secret_access_key="none").close()
# A collection in a fork would write to the memory of every object, and so copy all of it.
gc.collect()
gc.freeze()
