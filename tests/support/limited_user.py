"""A user of the embedded AWS who may do only what was said last."""

import json

import boto3

from worker.local import EmbeddedAws

__all__ = ["LimitedUser"]


class LimitedUser:
    """A new IAM user; `environment` is who it is to any AWS SDK."""

    def __init__(self, name: str, aws: EmbeddedAws) -> None:
        fixed = aws.access.credentials
        assert fixed is not None
        self._iam = boto3.client(
            "iam",
            region_name=aws.access.region,
            endpoint_url=aws.endpoint_url,
            aws_access_key_id=fixed.access_key_id,
            aws_secret_access_key=fixed.secret_access_key,
        )
        self._name = name
        self._iam.create_user(UserName=name)
        key = self._iam.create_access_key(UserName=name)["AccessKey"]
        self.environment = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def may(self, *actions: str) -> None:
        """Allow these actions on everything, and no others."""
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._iam.put_user_policy(UserName=self._name, PolicyName="may", PolicyDocument=document)
