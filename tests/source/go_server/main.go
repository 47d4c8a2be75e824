// Serves recorded events as an agent's own gRPC library frames them: grpc-go on a unix socket.
//
// In: a file of messages, each behind its length (four bytes, big endian). Every client of GetEvents gets all of them,
// then, as -then says, a clean end, an error, or silence. GetVersion answers; every other method is unimplemented.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const service = "/tetragon.FineGuidanceSensors/"

// raw hands bytes on as they are: the recording's bytes must arrive, not what a second serialisation makes of them.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (raw) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func read(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var messages [][]byte
	for len(data) > 0 {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.BigEndian.Uint32(data)) {
			return nil, fmt.Errorf("%s ends inside a message", path)
		}
		end := 4 + int(binary.BigEndian.Uint32(data))
		messages = append(messages, data[4:end])
		data = data[end:]
	}
	return messages, nil
}

func answer(messages [][]byte, then string) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var request []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		switch method {
		case service + "GetVersion":
			version := append([]byte{0x0a, 6}, "v1.7.0"...) // GetVersionResponse.version
			return stream.SendMsg(&version)
		case service + "GetEvents":
			for index := range messages {
				if err := stream.SendMsg(&messages[index]); err != nil {
					return err
				}
			}
			switch then {
			case "end":
				return nil
			case "fail":
				return status.Error(codes.PermissionDenied, "not for you: 100 % of them\n")
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		return status.Error(codes.Unimplemented, method)
	}
}

func main() {
	socket := flag.String("socket", "", "where to listen")
	file := flag.String("file", "", "the messages")
	buffer := flag.Int("write-buffer", 32*1024, "bytes gathered before they are written; 0 writes every frame")
	then := flag.String("then", "wait", "end, fail or wait")
	flag.Parse()
	messages, err := read(*file)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.ForceServerCodec(raw{}),
		grpc.UnknownServiceHandler(answer(messages, *then)),
		grpc.WriteBufferSize(*buffer),
	)
	go func() { // ends with its standard input, so that it outlives nobody
		os.Stdin.Read(make([]byte, 1))
		server.Stop()
	}()
	fmt.Println("ready")
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
