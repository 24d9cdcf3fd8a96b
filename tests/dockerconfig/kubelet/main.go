// Answers, by the kubelet's own code, the questions on standard input: which logins an image gets, whether a
// docker config can be read, and how an image name is filled in. The answers are kept in vectors.json, which
// holds regcred's port to them. To make them again, see test_kubelet.py.
package main

import (
	"encoding/json"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	"k8s.io/kubernetes/pkg/util/parsers"
)

type question struct {
	Servers  []string `json:"servers,omitempty"`
	Document string   `json:"document,omitempty"`
	Legacy   bool     `json:"legacy,omitempty"`
	Image    string   `json:"image"`
}

type answer struct {
	question
	Repository string     `json:"repository"`
	Logins     [][]string `json:"logins"`
	Error      bool       `json:"error"`
}

func ask(q question) answer {
	a := answer{question: q, Logins: [][]string{}}
	document := q.Document
	if q.Servers != nil {
		auths := map[string]any{}
		for _, server := range q.Servers {
			auths[server] = map[string]string{"username": server, "password": "x"}
		}
		bytes, _ := json.Marshal(map[string]any{"auths": auths})
		document = string(bytes)
	}
	repository, tag, digest, err := parsers.ParseImageName(q.Image)
	if err != nil {
		a.Error = true
		return a
	}
	a.Repository = repository + "|" + tag + "|" + digest
	secret := v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(document)}}
	if q.Legacy {
		secret = v1.Secret{Type: v1.SecretTypeDockercfg, Data: map[string][]byte{v1.DockerConfigKey: []byte(document)}}
	}
	keyring, err := secrets.MakeDockerKeyring([]v1.Secret{secret}, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		a.Error = true
		return a
	}
	found, _ := keyring.Lookup(repository)
	for _, login := range found {
		a.Logins = append(a.Logins, []string{login.Username, login.Password})
	}
	return a
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := []answer{}
	for _, q := range questions {
		answers = append(answers, ask(q))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
