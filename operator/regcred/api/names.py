"""Every name regcred puts on an object of the cluster, in one place, since users and manifests rely on them."""

GROUP = "regcred.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

CLUSTER_KIND = "ClusterRegistryCredential"
CLUSTER_PLURAL = "clusterregistrycredentials"
NAMESPACED_KIND = "RegistryCredential"
NAMESPACED_PLURAL = "registrycredentials"
#: Plural to kind.
KINDS = {CLUSTER_PLURAL: CLUSTER_KIND, NAMESPACED_PLURAL: NAMESPACED_KIND}

#: Field manager of every write.
MANAGER = "regcred"
DEFAULT_SECRET_NAME = "regcred"  # noqa: S105 - the name of a Secret, not its content
SECRET_TYPE = "kubernetes.io/dockerconfigjson"  # noqa: S105
SECRET_KEY = ".dockerconfigjson"  # noqa: S105
#: The form of old: the map of servers by itself.
LEGACY_SECRET_TYPE = "kubernetes.io/dockercfg"  # noqa: S105
LEGACY_SECRET_KEY = ".dockercfg"  # noqa: S105

#: The label that, with `CONTRIBUTORS`, says that a Secret is ours.
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "regcred"

#: On our Secrets: JSON, UID of each contributing resource to its kind, name, and deletion policy.
CONTRIBUTORS = f"{GROUP}/contributors"
#: On our Secrets: JSON, server to the resource it comes from, and its expiry.
SERVERS = f"{GROUP}/servers"
#: On our Secrets: what the data was composed of; equal means no write.
REVISION = f"{GROUP}/revision"

#: On a foreign Secret: the owner's consent that regcred takes it over.
ADOPT = f"{GROUP}/adopt"
#: Label on a Namespace, annotation on a ServiceAccount: leave it alone.
IGNORE = f"{GROUP}/ignore"
#: On a resource: any new value means fetch again now.
REFRESH = f"{GROUP}/refresh-requested-at"
