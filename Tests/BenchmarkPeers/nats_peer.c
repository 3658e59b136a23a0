// SPDX-License-Identifier: Apache-2.0
//
// Request and reply through a NATS server, written with its C client as fast as that goes: callbacks that publish the
// next request as soon as an answer comes, no waiting for single answers.
//
//   nats_peer worker URL                        serves "echo", shared with the other workers
//   nats_peer pipelined URL N SIZE WINDOW       makes N calls, WINDOW of them outstanding

#define _GNU_SOURCE
#include <nats/nats.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static void check(natsStatus status, const char *what)
{
    if (status == NATS_OK) return;
    fprintf(stderr, "nats_peer: %s: %s\n", what, natsStatus_GetText(status));
    exit(EXIT_FAILURE);
}

static natsConnection *connect_to(const char *url)
{
    natsConnection *connection = NULL;
    check(natsConnection_ConnectTo(&connection, url), "connect");
    return connection;
}

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void answer(natsConnection *connection, natsSubscription *subscription, natsMsg *message, void *closure)
{
    (void)subscription;
    (void)closure;
    natsConnection_Publish(
        connection, natsMsg_GetReply(message), natsMsg_GetData(message), natsMsg_GetDataLength(message));
    natsMsg_Destroy(message);
}

static int worker(const char *url)
{
    natsConnection *connection = connect_to(url);
    natsSubscription *subscription = NULL;
    check(natsConnection_QueueSubscribe(&subscription, connection, "echo", "workers", answer, NULL), "subscribe");
    check(natsSubscription_SetPendingLimits(subscription, -1, -1), "limits");
    check(natsConnection_Flush(connection), "flush");
    printf("role=worker ready=1\n");
    fflush(stdout);
    while (pause() < 0) continue;
    return EXIT_SUCCESS;
}

struct calls {
    natsInbox *inbox;
    char *payload;
    int size;
    long count, sent, received;
    pthread_mutex_t lock;
    pthread_cond_t done;
};

static void request(natsConnection *connection, struct calls *calls)
{
    calls->sent++;
    check(natsConnection_PublishRequest(connection, "echo", calls->inbox, calls->payload, calls->size), "publish");
}

// Only this thread counts: the first requests are sent before the first answer can come.
static void answered(natsConnection *connection, natsSubscription *subscription, natsMsg *message, void *closure)
{
    (void)subscription;
    struct calls *calls = closure;
    natsMsg_Destroy(message);
    pthread_mutex_lock(&calls->lock);
    calls->received++;
    if (calls->sent < calls->count) request(connection, calls);
    if (calls->received == calls->count) pthread_cond_signal(&calls->done);
    pthread_mutex_unlock(&calls->lock);
}

static void run(natsConnection *connection, struct calls *calls, long count, long window)
{
    pthread_mutex_lock(&calls->lock);
    calls->count = count;
    calls->sent = calls->received = 0;
    while (calls->sent < count && calls->sent < window) request(connection, calls);
    while (calls->received < count) pthread_cond_wait(&calls->done, &calls->lock);
    pthread_mutex_unlock(&calls->lock);
}

static int pipelined(char **arguments)
{
    natsConnection *connection = connect_to(arguments[0]);
    long count = atol(arguments[1]), window = atol(arguments[3]);
    struct calls calls = {.size = atoi(arguments[2])};
    pthread_mutex_init(&calls.lock, NULL);
    pthread_cond_init(&calls.done, NULL);
    calls.payload = malloc((size_t)calls.size);
    if (calls.payload == NULL) return EXIT_FAILURE;
    memset(calls.payload, 'x', (size_t)calls.size);
    check(natsInbox_Create(&calls.inbox), "inbox");
    natsSubscription *subscription = NULL;
    check(natsConnection_Subscribe(&subscription, connection, calls.inbox, answered, &calls), "subscribe");
    check(natsSubscription_SetPendingLimits(subscription, -1, -1), "limits");
    check(natsConnection_Flush(connection), "flush");
    run(connection, &calls, count / 10 + window, window);
    double started = now_seconds();
    run(connection, &calls, count, window);
    printf("role=pipelined count=%ld calls_per_s=%.0f\n", count, (double)count / (now_seconds() - started));
    natsSubscription_Destroy(subscription);
    natsConnection_Destroy(connection);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 3 && strcmp(argv[1], "worker") == 0) return worker(argv[2]);
    if (argc == 6 && strcmp(argv[1], "pipelined") == 0) return pipelined(argv + 2);
    fprintf(stderr, "usage: nats_peer worker URL | pipelined URL N SIZE WINDOW\n");
    return 2;
}
