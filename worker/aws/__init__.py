"""AWS: the only room that imports botocore and aiobotocore."""
