// What a client written with the agent's own libraries costs: grpc-go reads, protobuf-go parses, protojson prints.
//
// In: a socket and how many events at most. Out: one JSON line with the seconds, CPU seconds and peak memory that they took,
// and with -print every event on standard error as its JSON, as `tetra getevents -o json` prints it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"syscall"
	"time"

	"go_client/tetragon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
)

func cpuSeconds() (float64, int64) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9, used.Maxrss
}

func main() {
	socket := flag.String("socket", "", "the agent's")
	events := flag.Int("events", 0, "how many to take")
	print := flag.Bool("print", false, "print each as JSON")
	flag.Parse()
	began := time.Now()
	before, _ := cpuSeconds()
	connection, err := grpc.NewClient("unix:"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	stream, err := connection.NewStream(
		context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/tetragon.FineGuidanceSensors/GetEvents",
	)
	if err == nil {
		err = stream.SendMsg(&tetragon.GetEventsRequest{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	out := bufio.NewWriter(os.Stderr)
	format := protojson.MarshalOptions{UseProtoNames: true}
	taken := 0
	for ; err == nil && taken < *events; taken++ {
		event := new(tetragon.GetEventsResponse)
		if err = stream.RecvMsg(event); err == nil && *print {
			var line []byte
			if line, err = format.Marshal(event); err == nil {
				_, err = out.Write(append(line, '\n'))
			}
		}
	}
	if err == io.EOF { // the agent lost some, and the event that did not come was counted
		taken--
	} else if err != nil {
		log.Fatal(err)
	}
	out.Flush()
	after, peak := cpuSeconds()
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"events": taken, "seconds": time.Since(began).Seconds(), "cpu": after - before, "peak_mb": float64(peak) / 1024,
	})
}
