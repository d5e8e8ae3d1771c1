"""The wanted topology for other tools: a CloudFormation template, Terraform's HCL, IAM policies. AWS is not asked."""

from worker.topology.export.cloudformation import cloudformation
from worker.topology.export.roles import Role, policies, policy
from worker.topology.export.terraform import terraform
from worker.topology.export.whereabouts import place_in

__all__ = ["Role", "cloudformation", "place_in", "policies", "policy", "terraform"]
