// In the place of k8s.io/dynamic-resource-allocation, of which the module proxy has no 0.31, and whose 0.32 needs API
// types that 1.31 has not: what kube-apiserver 1.31 calls, for an alpha API that is off.
module k8s.io/dynamic-resource-allocation

go 1.26.0

require (
	k8s.io/api v0.31.14
	k8s.io/apiserver v0.31.14
)
