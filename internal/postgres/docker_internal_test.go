package postgres

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// With nothing but Docker the server runs in a container, keeps its data in the data directory, and a container that
// outlived its testflow is stopped. Needs an engine and an image that is there: TESTFLOW_TEST_PG_IMAGE, else postgres:17.
func TestServer_onlyDocker_runsInAContainer(t *testing.T) {
	image := os.Getenv("TESTFLOW_TEST_PG_IMAGE")
	if image == "" {
		image = defaultDockerImage
	}
	if err := exec.Command("docker", "image", "inspect", image).Run(); err != nil {
		t.Skipf("no Docker engine with the image %s", image)
	}
	onlyOnPath(t, "docker")
	dir := filepath.Join(reachableDir(t), "data")
	var said []string
	cfg := ServerConfig{DataDir: dir, CacheDir: t.TempDir(), DockerImage: image, Say: func(l string) { said = append(said, l) }}
	s, err := startServer(t.Context(), cfg, nil, false)
	require.NoError(t, err)
	stopped := false
	defer func() {
		if !stopped {
			assert.NoError(t, s.Stop(t.Context()))
		}
	}()
	exec1(t, s.URL, "CREATE TABLE kept AS SELECT 42 AS n")
	assert.Equal(t, "on", value[string](t, s.URL, "SELECT current_setting('synchronous_commit')"))
	assert.GreaterOrEqual(t, s.Version, oldest)
	assert.Empty(t, said)

	// The docker client is killed, so nobody stops the container.
	require.NoError(t, exec.Command("docker", "container", "inspect", s.containerName()).Run())
	client, err := os.FindProcess(s.PID)
	require.NoError(t, err)
	require.NoError(t, client.Kill())
	<-s.Done()
	require.Error(t, s.Err())
	stopped = true
	require.NoError(t, s.lock.Close())

	again, err := startServer(t.Context(), cfg, nil, false)
	require.NoError(t, err)
	assert.Equal(t, 42, value[int](t, again.URL, "SELECT n FROM kept"))
	require.NoError(t, again.Stop(t.Context()))
	require.Error(t, exec.Command("docker", "container", "inspect", again.containerName()).Run(), "it is gone")
}
