// SPDX-License-Identifier: Apache-2.0
//
// Jobs through Gearman's server, with its C library: the client hands over a window of tasks, the library runs them all
// at once, and the next window follows.
//
//   gearman_peer worker PORT                       serves "echo"
//   gearman_peer pipelined PORT N SIZE WINDOW      makes N calls, WINDOW of them outstanding

#define _GNU_SOURCE
#include <libgearman/gearman.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "gearman_peer: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// The library frees the result.
static void *echo(gearman_job_st *job, void *context, size_t *size, gearman_return_t *status)
{
    (void)context;
    *size = gearman_job_workload_size(job);
    void *result = malloc(*size);
    if (result == NULL) {
        *status = GEARMAN_WORK_FAIL;
        return NULL;
    }
    memcpy(result, gearman_job_workload(job), *size);
    *status = GEARMAN_SUCCESS;
    return result;
}

static int worker(int port)
{
    gearman_worker_st *worker = gearman_worker_create(NULL);
    if (worker == NULL) fail("worker", "no memory");
    gearman_worker_add_options(worker, GEARMAN_WORKER_GRAB_UNIQ);
    if (gearman_worker_add_server(worker, "127.0.0.1", (in_port_t)port) != GEARMAN_SUCCESS
        || gearman_worker_add_function(worker, "echo", 0, echo, NULL) != GEARMAN_SUCCESS)
        fail("worker", gearman_worker_error(worker));
    printf("role=worker ready=1\n");
    fflush(stdout);
    while (gearman_worker_work(worker) == GEARMAN_SUCCESS) continue;
    fail("work", gearman_worker_error(worker));
    return EXIT_FAILURE;
}

static long completed;

static gearman_return_t complete(gearman_task_st *task)
{
    (void)task;
    completed++;
    return GEARMAN_SUCCESS;
}

static void run(gearman_client_st *client, const char *payload, size_t size, long count, long window)
{
    completed = 0;
    for (long sent = 0; sent < count;) {
        for (long i = 0; i < window && sent < count; i++, sent++) {
            gearman_return_t status;
            if (gearman_client_add_task(client, NULL, NULL, "echo", NULL, payload, size, &status) == NULL
                || status != GEARMAN_SUCCESS)
                fail("add_task", gearman_client_error(client));
        }
        if (gearman_client_run_tasks(client) != GEARMAN_SUCCESS) fail("run_tasks", gearman_client_error(client));
    }
    if (completed != count) fail("run_tasks", "not all tasks were completed");
}

static int pipelined(char **arguments)
{
    gearman_client_st *client = gearman_client_create(NULL);
    if (client == NULL) fail("client", "no memory");
    if (gearman_client_add_server(client, "127.0.0.1", (in_port_t)atoi(arguments[0])) != GEARMAN_SUCCESS)
        fail("client", gearman_client_error(client));
    gearman_client_add_options(client, GEARMAN_CLIENT_FREE_TASKS);
    gearman_client_set_complete_fn(client, complete);
    long count = atol(arguments[1]), window = atol(arguments[3]);
    size_t size = (size_t)atol(arguments[2]);
    char *payload = malloc(size);
    if (payload == NULL) fail("client", "no memory");
    memset(payload, 'x', size);
    run(client, payload, size, count / 10 + window, window);
    double started = now_seconds();
    run(client, payload, size, count, window);
    printf("role=pipelined count=%ld calls_per_s=%.0f\n", count, (double)count / (now_seconds() - started));
    gearman_client_free(client);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 3 && strcmp(argv[1], "worker") == 0) return worker(atoi(argv[2]));
    if (argc == 6 && strcmp(argv[1], "pipelined") == 0) return pipelined(argv + 2);
    fprintf(stderr, "usage: gearman_peer worker PORT | pipelined PORT N SIZE WINDOW\n");
    return 2;
}
